"""Submit prompts and collect results: `from producer import Client`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client as Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """`Client` on first use: the command line's help must not wait for SQLAlchemy."""
    if name == "Client":
        from promptmill.shadowed import require_own_packages

        require_own_packages()
        from producer.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
