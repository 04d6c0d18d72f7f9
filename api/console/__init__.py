"""The console: the pages for the people around an erasure, on the use cases of the API.

Pages are rendered here from templates; `gate` says who may come in, `page` what every page has
in common. What changes by itself on a page is fetched by htmx, and nothing that is read needs a
script."""

PREFIX = "/console"


def below_console(path: str) -> bool:
    """True for the paths of the console."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")
