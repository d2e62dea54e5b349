"""How promptmill's optional dependencies are installed."""


def install_command(*extras: str) -> str:
    """What to run for these extras of pyproject.toml. promptmill is on no package index."""
    return f"pip install -e '.[{','.join(extras)}]' -c constraints.txt in promptmill's folder"
