"""How the models that ship with Antiphon were made. Nothing imports recipes but their tests."""
