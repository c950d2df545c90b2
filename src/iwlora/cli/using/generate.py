"""Generate images with a finished run of the kind image-tokens.

Example:
    iwlora generate runs/digits --count 64 --class 3 --steps 12 --temperature 4.5 --out images/
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command, add_trust_remote_code
from iwlora.results import layout


def add_parser(commands: Commands) -> None:
    """Add ``iwlora generate``."""
    parser = add_command(commands, "generate", run, __doc__)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new folder to write")
    parser.add_argument(
        "--count", type=int, default=64, metavar="N", help="the number of images; default: 64"
    )
    parser.add_argument(
        "--class", dest="label", metavar="CLASS", help="their class; default: all classes in turn"
    )
    parser.add_argument(
        "--instance",
        type=int,
        metavar="N",
        help="the prompts of training image N of --class, from 0, in a run with "
        "method.instances=true; default: all of the class in turn",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of masked decoding, at most the codes of an image; default: 12, or as many as there "
        "are codes",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="larger: more varied images; default: 4.5, or 1 for a model that writes code by code",
    )
    parser.add_argument(
        "--interpolate",
        nargs=2,
        metavar=("A", "B"),
        help="begin with the prompts of class A, and move to those of class B over the steps; with "
        "--class A and B are the numbers of two of its training images",
    )
    parser.add_argument(
        "--interpolation",
        choices=("linear", "spherical"),
        default="linear",
        help="the way of --interpolate: straight, or along the arc; default: linear",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all that is random; default: 0"
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="compare the images with held-out ones by features of the source model: Fréchet "
        "distance, variety within a class, and whether a classifier recognizes their class; into "
        f"{layout.IMAGE_SCORES}",
    )
    parser.add_argument(
        "--features",
        metavar="MODEL",
        help="--scores by the features of an image model of transformers, a folder or a hub id, "
        "such as facebook/dinov2-small",
    )
    parser.add_argument(
        "--held-out",
        metavar="FOLDER",
        help="also write the held-out images into a new folder, at the size of the generated ones, "
        "for tools that compare two folders",
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the images, and print the folder."""
    from iwlora.results.run.image_scores import ImageScores
    from iwlora.training.image_generation.generate import generate
    from iwlora.training.image_generation.scores import summary_lines

    between = arguments.interpolate
    folder = generate(
        arguments.run,
        arguments.out,
        count=arguments.count,
        label=arguments.label,
        instance=arguments.instance,
        steps=arguments.steps,
        temperature=arguments.temperature,
        between=None if between is None else (between[0], between[1]),
        interpolation=arguments.interpolation,
        seed=arguments.seed,
        scores=arguments.scores,
        features=arguments.features,
        held_out=arguments.held_out,
        trust_remote_code=arguments.trust_remote_code,
    )
    print(folder)
    if arguments.scores or arguments.features:
        for line in summary_lines(ImageScores.load(folder / layout.IMAGE_SCORES)):
            print(line)
