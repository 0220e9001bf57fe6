"""A process that serves collects what its turns leave behind, and never walks what it has loaded."""

import subprocess
import sys

# In a process of its own: what is frozen stays frozen.
PROGRAM = """
import gc, weakref
from antiphon.hosting.loaded_memory import keep_what_is_loaded

class Thing: ...

loaded = [[Thing()] for _ in range(10_000)]
keep_what_is_loaded()
left_to_walk = len(gc.get_objects())
later = Thing()
later.itself = later
seen = weakref.ref(later)
del later
gc.collect()
print(gc.get_freeze_count() > 20_000, left_to_walk < 5_000, seen() is None, len(loaded))
"""


def test_what_is_loaded_is_not_walked_and_later_cycles_are_freed() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True", "True", "10000"]
