"""What can be wrong with a run of the recipe that its reader can mend."""


class RecipeError(Exception):
    """Says what was expected, what is there instead, and what to do."""
