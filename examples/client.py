"""The SDK in one page: submit a workflow, watch it, read what it printed. Needs a network: ``wattle up`` in another terminal."""

from wattle import Client

DOCUMENT = {
    "name": "greeting",
    "workers": [
        {
            "name": "write",
            "script": 'echo "hello from wattle" > "$WATTLE_OUTPUT_TEXT"',
            "outputs": {"text": "text.txt"},
        },
        {"name": "show", "script": 'cat "$WATTLE_INPUT_TEXT"', "inputs": {"text": "write/text"}},
    ],
}


def main() -> None:
    with Client() as client:
        run = client.submit(DOCUMENT)
        for update in client.watch(run.id):
            print(update.status, getattr(update, "name", run.id))
        print(b"".join(client.logs(run.id, "show")).decode(), end="")


if __name__ == "__main__":
    main()
