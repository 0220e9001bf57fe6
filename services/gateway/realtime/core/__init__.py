"""A live session as a state machine: commands and facts in, events and effects out. No I/O, no clock, no wire."""
