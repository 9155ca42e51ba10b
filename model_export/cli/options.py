"""Options and arguments that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the rows' cache; default DATA/.cache."),
]
Users = Annotated[
    Path | None,
    typer.Option(help="Users file (parquet); default DATA/user_info.parquet, if it exists."),
]
