"""The secret key: the same one turns masks the same way, and leaves nothing of itself behind."""

import stat

import pytest
import torch
from scipy.stats import kstest

from maskbench import inspect
from maskbench.data import masked_set
from maskbench.errors import InputError
from maskbench.masking import key
from maskbench.storage import pt

KEY = bytes(range(32))
PINNED = [-0.22570846465192607, -0.018114316980847065, -0.2006027282041116]
PINNED_PERMUTATION = [4, 1, 3, 0, 2]


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 24, generator=generator), torch.rand(50, 5, generator=generator).softmax(1)


def test_the_inverse_restores_and_lengths_stay(masks):
    transform = key.KeyedTransform(KEY, 24, 5)
    turned = transform.apply(*masks)
    for found, wanted in zip(transform.invert(*turned), masks, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(turned[0].norm(dim=1), masks[0].norm(dim=1))
    assert (turned[0] - masks[0]).abs().max() > 0.5
    torch.testing.assert_close(turned[1].sort(1).values, masks[1].sort(1).values, rtol=0, atol=0)
    assert sorted(transform.permutation.tolist()) == list(range(5)) != transform.permutation.tolist()
    product = transform.matrix @ transform.matrix.T
    torch.testing.assert_close(product, torch.eye(24, dtype=torch.float64), rtol=0, atol=1e-12)


def test_one_key_one_transform():
    first, again = key.KeyedTransform(KEY, 24, 5), key.KeyedTransform(KEY, 24, 5)
    assert torch.equal(first.matrix, again.matrix) and torch.equal(first.permutation, again.permutation)
    # pinned: another machine or version must turn masks alike
    pinned = torch.tensor(PINNED, dtype=torch.float64)
    torch.testing.assert_close(first.matrix[0, :3], pinned, rtol=0, atol=1e-12)
    assert first.permutation.tolist() == PINNED_PERMUTATION
    other = key.KeyedTransform(bytes(32), 24, 5)
    assert (other.matrix - first.matrix).abs().max() > 0.1


def test_the_matrix_is_haar():
    # one entry of a Haar matrix, times sqrt(G), is nearly normal; signs fixed by QR alone would bias the diagonal
    matrix = key.KeyedTransform(KEY, 384, 20).matrix
    assert kstest((matrix * 384**0.5).flatten()[::97].numpy(), "norm").pvalue > 1e-3
    assert abs(matrix.diagonal().mean()) * 384 < 4


def test_key_files(tmp_path):
    path = tmp_path / "owner.key"
    with pytest.raises(InputError, match="no such key; bring it, or make one with"):
        key.load(path)
    key.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(key.load(path)) == 32
    with pytest.raises(InputError, match="never overwritten"):
        key.create(path)
    key.create(tmp_path / "other.key")
    assert key.load(path) != key.load(tmp_path / "other.key")
    path.chmod(0o640)
    with pytest.raises(InputError, match="mode 0640"):
        key.load(path)
    for content in (b"", b"0" * 63, b"0" * 65, b"z" * 64, b"0" * 10_000, b"\xff" * 32):
        bad = tmp_path / "bad.key"
        bad.write_bytes(content)
        with pytest.raises(InputError, match="is not a key") as error:
            key.load(bad)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("around", ["\u00a0{}", "\ufeff{}\u200b", "\u201c{}\u201d\n", "`{}`", "0x{}", "0X{}\u2060"])
def test_what_word_processors_put_around_a_key_changes_nothing(tmp_path, around):
    path = tmp_path / "owner.key"
    path.touch(0o600)
    path.write_text(around.format("0A" * 32), encoding="utf-8")
    assert key.load(path) == bytes([10]) * 32


def test_keyed_masks(run_here, workplace, tmp_path, capsys):
    key.create(tmp_path / "owner.key")
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    arguments = ("--dataset", "digits", "--encoder", encoder, "--limit", 400)
    run_here("mask_dataset.py", *arguments)
    run_here("mask_dataset.py", *arguments, "--key", "owner.key")
    plain, turned = (masked_set.load(tmp_path / "masked" / f"digits{name}.pt") for name in ("", "-key"))
    assert turned.method == "aae+key" and turned.encoder == plain.encoder
    transform = key.KeyedTransform(key.load(tmp_path / "owner.key"), 384, 20)
    torch.testing.assert_close(
        transform.invert(turned.gaussian, turned.categorical)[0], plain.gaussian, atol=1e-5, rtol=0
    )
    assert set(pt.load(tmp_path / "masked" / "digits-key.pt", masked_set.FORMAT)) == set(
        pt.load(tmp_path / "masked" / "digits.pt", masked_set.FORMAT)
    )
    assert "turned by a secret key" in str(inspect.describe(tmp_path / "masked" / "digits-key.pt"))
    run_here("classify.py", "--masked", "masked/digits-key.pt", "--classes", 3, "--repeats", 1, "--methods", "forest")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_here("mask_dataset.py", *arguments, "--key", "missing.key")
    assert capsys.readouterr().err.strip().endswith("python -m maskbench.key missing.key")
