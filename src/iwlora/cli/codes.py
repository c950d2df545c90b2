"""Make a codebook that fits images, or of a trained VQ model, and a new model that reads its codes.

Example:
    iwlora codes pictures/ --codes 128 --patch 4 --size 28 --out new-model/
    iwlora codes --vq vqgan/ --size 256 --out new-model/
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Add ``iwlora codes``."""
    parser = add_command(commands, "codes", run, __doc__)
    parser.add_argument(
        "pictures", nargs="?", help="a folder of square images, or a table with their paths"
    )
    parser.add_argument(
        "--vq",
        metavar="FOLDER",
        help="a trained VQ model in place of images: JanusVQVAE of transformers, or VQModel of "
        "diffusers",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new folder to write")
    parser.add_argument("--codes", type=int, metavar="N", help="the number of codes; default: 128")
    parser.add_argument(
        "--patch",
        type=int,
        metavar="PIXELS",
        help="the width and height of the patch of a code; default: 4",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="the width and height to which images are scaled, a multiple of --patch; default: 28, "
        "none with --vq",
    )
    parser.add_argument(
        "--darkest",
        type=int,
        metavar="N",
        help="what black is for the VQ model, white being 1: -1 or 0; default: -1",
    )
    parser.add_argument(
        "--order",
        choices=("masked", "next-code"),
        default="masked",
        help="masked: a model like BERT, which predicts masked codes; next-code: one like GPT-2, "
        "which predicts each code from those before it; default: masked",
    )
    parser.add_argument(
        "--width", type=int, default=96, metavar="N", help="of hidden states; default: 96"
    )
    parser.add_argument(
        "--blocks", type=int, default=3, metavar="N", help="of the model; default: 3"
    )
    parser.add_argument(
        "--heads", type=int, default=4, metavar="N", help="of attention; default: 4"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--image", metavar="COLUMN", help="the column of images in a table, where it is not obvious"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, and print its name."""
    from iwlora.training.image_generation.new_codes import make_codes

    folder = make_codes(
        arguments.pictures,
        arguments.out,
        vq=arguments.vq,
        codes=arguments.codes,
        patch=arguments.patch,
        size=arguments.size,
        darkest=arguments.darkest,
        order=arguments.order,
        width=arguments.width,
        blocks=arguments.blocks,
        heads=arguments.heads,
        seed=arguments.seed,
        column=arguments.image,
    )
    print(folder)
