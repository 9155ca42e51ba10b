"""Options and arguments that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from model_export.bundle.manifest import ContentOrigin

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Models = Annotated[Path, typer.Option("--out", help="Models folder; the bundle is OUT/VERSION.")]
VersionName = Annotated[
    str | None, typer.Option("--version", help="Name of the bundle; the time in UTC by default.")
]
WantsInt8 = Annotated[
    bool, typer.Option("--int8", help="Add an int8 ranker if it passes its gate on DATA.")
]
WantsBf16 = Annotated[
    bool,
    typer.Option(
        "--bf16",
        help="Permit bfloat16 if it passes the gate on DATA; requires the extra openvino and "
        "a processor that has it.",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="With --int8 or --bf16: publish it even if the gate fails."),
]
AcceptRounding = Annotated[
    bool,
    typer.Option(
        "--accept-rounding", help="Publish answers that float32 rounds beyond their bounds."
    ),
]
Content = Annotated[
    str | None,
    typer.Option(
        metavar="FEATURE:DIGEST",
        help="Vectors of an item feature that it was trained with, by the digest of their encoder "
        "and map (`text content info` prints it): items of another count as without.",
    ),
]
GivenContent = Annotated[
    bool,
    typer.Option(
        "--given-content",
        help="With --content: given vectors serve, too, as for a map fitted --into them.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the rows' cache; default DATA/.cache."),
]
Users = Annotated[
    Path | None,
    typer.Option(help="Users file (parquet); default DATA/user_info.parquet, if it exists."),
]


def content_origin(given: str | None, or_given: bool) -> ContentOrigin | None:
    """Parse FEATURE:DIGEST. Raises BadParameter."""
    if given is None:
        if or_given:
            raise typer.BadParameter("--given-content requires --content")
        return None
    feature, _, digest = given.rpartition(":")
    try:
        return ContentOrigin(feature=feature, digest=digest, given=or_given)
    except ValidationError:
        raise typer.BadParameter(
            f"--content {given}: not FEATURE:DIGEST with a digest of 16 hexadecimal digits"
        ) from None
