"""A model whose files were replaced is run again, and what it said before is not passed off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.acceptance.mill import Mill
from tests.support.checkpoints import Checkpoint


def _reverse_weights(folder: Path) -> None:
    """Other numbers of the same shapes, in the same file."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({name: -one for name, one in load_file(file).items()}, file, {"format": "pt"})


def test_run_after_weights_were_replaced_is_a_new_batch(
    embedded: Mill, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model, old = tmp_path / "model", tmp_path / "old.safetensors"
    shutil.copytree(checkpoint("gpt2"), model)
    shutil.copy(model / "model.safetensors", old)
    embedded.env["PROMPTMILL_ENGINE"] = "transformers"
    file = embedded.numbered(2)
    arguments = ("run", file, "--model", str(model), "-p", "max_tokens=4", "--json")

    first = json.loads(embedded.ok(*arguments))
    _reverse_weights(model)
    done = embedded.run(*arguments)
    assert done.returncode == 0, done.stderr
    second = json.loads(done.stdout)
    assert second["id"] != first["id"]
    assert (
        f"has changed since this was run, as {first['id']}: its weights are others" in done.stderr
    )
    texts = [
        [one.text for one in embedded.client.results(batch)]
        for batch in (first["id"], second["id"])
    ]
    assert texts[0] != texts[1]

    # And as it was before, it is the first batch again, without a worker
    (model / "model.safetensors").write_bytes(old.read_bytes())
    again = json.loads(embedded.ok(*arguments))
    assert again["id"] == first["id"]
