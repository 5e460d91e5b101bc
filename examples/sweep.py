"""A sweep over values: one worker for each, and one that waits for all. Needs a network: ``wattle up`` in another terminal."""

import sys

from wattle import Client

STUDY = 'awk -v x="$1" \'BEGIN { printf "%s %.3f\\n", x, sin(x) }\' > "${outputs.point}"'


def document(values: list[str]) -> dict[str, object]:
    """A workflow as a mapping, which is what loops are for."""
    studies = [
        {
            "name": f"study-{number}",
            "script": STUDY,
            "args": [value],
            "outputs": {"point": "point.txt"},
            "retries": 2,
        }
        for number, value in enumerate(values)
    ]
    points = {f"p{number}": f"study-{number}/point" for number in range(len(values))}
    gather = {
        "name": "gather",
        "script": 'cat "$@" | tee "${outputs.curve}"',
        "args": [f"${{inputs.{key}}}" for key in points],
        "inputs": points,
        "outputs": {"curve": "curve.txt"},
    }
    return {"name": "sweep", "workers": [*studies, gather]}


def main() -> None:
    values = sys.argv[1:] or ["0", "0.5", "1", "1.5"]
    with Client() as client:
        run = client.submit_and_wait(document(values))
        print(f"run {run.id} {run.status}")
        print(b"".join(client.logs(run.id, "gather")).decode(), end="")


if __name__ == "__main__":
    main()
