"""Close a stage's hub for launches, or open it again, from one moment to the next.

    make close STAGE=prod MESSAGE='We are moving to another region. Back at noon.'
    make open STAGE=prod

Who launches is refused with the message. Notebooks that run go on, and their visitors enter, stop and delete them.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.door import DoorStore
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.text import is_visible
from infra.project import APP

MESSAGE_LENGTH: Final = 300  # characters


def table_of(cloudformation: Any, stage: str) -> str:
    """Name the stage's table; raises BadConfiguration when the stage is not there."""
    try:
        (stack,) = cloudformation.describe_stacks(StackName=f"{APP}-{stage}")["Stacks"]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            raise BadConfiguration(f"There is no stage {stage} in this account and region") from error
        raise
    return next(str(output["OutputValue"]) for output in stack["Outputs"] if output["OutputKey"] == "Table")


def set_door(session: boto3.Session, stage: str, message: str | None) -> str:
    """Close the door with a message, or open it (None); say what was done.

    Raises BadConfiguration, StoreUnavailable.
    """
    if message is not None and not (is_visible(message) and 0 < len(message.strip()) <= MESSAGE_LENGTH):
        raise BadConfiguration(
            f"Say in MESSAGE, in one line of at most {MESSAGE_LENGTH} characters, why nobody can launch and when it is "
            "over"
        )
    door = DoorStore(session.client("dynamodb"), table_of(session.client("cloudformation"), stage), time.time)
    if message is None:
        door.open()
        return f"{APP}-{stage} launches notebooks"
    door.close(message.strip())
    return f"{APP}-{stage} launches no notebooks, and says: {message.strip()}"


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.door", description="Close or open a stage for launches.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    parser.add_argument(
        "--close", metavar="MESSAGE", help="what is told to who launches; without it the door is opened"
    )
    asked = parser.parse_args(arguments)
    try:
        print(set_door(boto3.Session(), asked.stage, asked.close))
    except HomeportError as error:
        print(error.message, file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"AWS said: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
