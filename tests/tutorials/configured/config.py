"""The usual settings."""


class Config:
    TITLE = "Untitled"
    TESTING = False


class Production(Config):
    PREFERRED_URL_SCHEME = "https"
