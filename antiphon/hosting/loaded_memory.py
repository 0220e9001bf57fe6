"""What a process has loaded when it begins to serve stays until it ends; the garbage collector need not look there."""

import gc


def keep_what_is_loaded() -> None:
    """For processes that serve and do nothing else: of what is there now, cycles are never freed again.

    A full collection walks every object of torch and the model's modules while all threads wait for the interpreter's
    lock: 150 ms with nano, in the middle of somebody's turn.
    """
    gc.collect()
    gc.freeze()
