import pickle

import pytest
import torch

from restoration.errors import CheckpointError
from training.checkpoint import CONTENTS, NAME, load_checkpoint, save_checkpoint

STATE = dict.fromkeys(CONTENTS, 0) | {"generator": {"weight": torch.arange(1000.0)}, "step": 7}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path / "runs" / "new", STATE)
    loaded = load_checkpoint(tmp_path / "runs" / "new")
    assert loaded["step"] == 7
    assert torch.equal(loaded["generator"]["weight"], STATE["generator"]["weight"])
    assert [path.name for path in (tmp_path / "runs" / "new").iterdir()] == [NAME]


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path}.* does not exist"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_half_written_checkpoint_is_refused_in_one_line(tmp_path, share):
    save_checkpoint(tmp_path, STATE)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*\); start the run anew") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_a_writer_that_dies_leaves_the_checkpoint_before(tmp_path):
    class Unwritable:
        def __reduce__(self):
            raise OSError("the disk is full")

    save_checkpoint(tmp_path, STATE)
    with pytest.raises(CheckpointError, match=r"cannot be written .*disk is full"):
        save_checkpoint(tmp_path, STATE | {"step": 8, "generator": Unwritable()})
    assert load_checkpoint(tmp_path)["step"] == 7


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("dump", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_code_in_a_checkpoint_is_not_run(tmp_path, dump):
    dump(STATE | {"recipe": Bomb(tmp_path / "was_run")}, tmp_path / NAME)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("other", [torch.zeros(3), [1, 2], {"state_dict": {}}])
def test_a_file_of_another_program_is_refused(tmp_path, other):
    torch.save(other, tmp_path / NAME)
    with pytest.raises(CheckpointError, match="not a checkpoint of this trainer"):
        load_checkpoint(tmp_path)
