"""On whose account a live session runs, as its key stands now: read again before each of its turns."""

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.errors import AntiphonError, PermissionDenied, Unauthenticated
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission


@dataclass(slots=True)
class Account:
    # As it was when it was last read.
    caller: Caller
    admission: Admission
    # Ends the session of whoever may not have one any more.
    dismiss: Callable[[AntiphonError], None]

    async def renew(self) -> Caller:
        """Raises Unauthenticated and PermissionDenied, which end the session too, or Unavailable, which does not."""
        try:
            caller = await self.admission.renewed(self.caller)
            caller.check_model(*self.admission.model_names)
        except (Unauthenticated, PermissionDenied) as error:
            self.dismiss(error)
            raise
        self.caller = caller
        return caller
