"""Options, messages and progress bars that the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from feature_store.errors import StoreError
from feature_store.wording import with_file
from model_export.bundle.errors import BundleError
from text.corpus.errors import CorpusError
from training.cli.console import AsJson, fail, progress, screen
from training.recipe_files import RecipeError

__all__ = ["AsJson", "exit_on_error", "fail", "language_codes", "progress", "screen"]


def language_codes(given: str) -> list[str]:
    """Parse ``--languages``, each code once. Raises typer.BadParameter."""
    from text.corpus.entry import LANGUAGE

    codes = list(dict.fromkeys(code.strip() for code in given.split(",") if code.strip()))
    if not codes:
        raise typer.BadParameter("no language", param_hint="--languages")
    if odd := [code for code in codes if not LANGUAGE.fullmatch(code)]:
        raise typer.BadParameter(
            f"{odd[0]} is no language code, such as en or pt-br", param_hint="--languages"
        )
    alike: dict[str, str] = {}
    for code in codes:
        if (first := alike.setdefault(code.lower().replace("_", "-"), code)) != code:
            raise typer.BadParameter(
                f"{first} and {code} are one language; give it once, as the texts have it",
                param_hint="--languages",
            )
    return codes


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one line and exit with code 1."""
    try:
        yield
    except (CorpusError, RecipeError) as error:
        fail(str(error))
    except (BundleError, StoreError) as error:
        fail(str(error))
    except (OSError, ValidationError) as error:
        fail(with_file(error))
    except MemoryError as error:
        fail(f"not enough memory: {error}")
    except ValueError as error:
        from feature_store.parquet.columns import DataFileError
        from text.encoder.run import RunError
        from text.evaluate.peers import PeerError
        from text.runtime.errors import TextError
        from text.tokenizer import TokenizerError
        from training.checkpoint import CheckpointError

        if isinstance(
            error,
            CheckpointError | DataFileError | RunError | PeerError | TextError | TokenizerError,
        ):
            fail(str(error))
        raise
