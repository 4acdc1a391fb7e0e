"""The settings of this one place."""
TITLE = "My site"
