"""Draws of the priors against their oracle, maskbench.ops.reference, and the compiled kernels against each other."""

import pytest
import scipy.stats
import torch
from ops_common import assert_close, needs_cuda_kernels, needs_gpu, needs_kernels, on_devices, state

from maskbench import ops
from maskbench.models import PriorSampler
from maskbench.ops import reference

# counter and key, low word first, and the output (Random123's known answers for philox4x32-10)
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# the first row of seed 0, offset 0 and 384 dimensions with a radius word of 2^32 - 128 or more, so that ln(1) is taken
ROW_OF_LN_1, PAIR_OF_LN_1 = 257_347, 139


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    assert tuple(reference.philox4x32(torch.tensor(counter), torch.tensor(key)).tolist()) == words


@needs_kernels
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_kernel_philox_known_answers(counter, key, words):
    from maskbench import _C

    block, offset, seed = (low | high << 32 for low, high in (counter[:2], counter[2:], key))
    assert tuple(_C.philox_words(seed, offset, block)) == words


@on_devices
@pytest.mark.parametrize("rows", [1, 3, 17, 41])
@pytest.mark.parametrize("gaussian_dim", [1, 2, 3, 5, 383, 384])
@pytest.mark.parametrize("categories", [1, 2, 20, 1000])
def test_sample_prior_matches_reference(device, rows, gaussian_dim, categories):
    arguments = (state(1234, 5, device), rows, gaussian_dim, categories, 7)
    gaussian, one_hot = ops.sample_prior(*arguments)
    oracle_gaussian, oracle_one_hot = reference.sample_prior(*arguments)
    assert_close(gaussian, oracle_gaussian)
    assert one_hot.dtype == torch.float32 and torch.equal(one_hot, oracle_one_hot)


@on_devices
@pytest.mark.parametrize(
    ("seed", "offset", "first_row"),
    [
        (-1, 0, 0),
        (-(2**63), 2**63 - 1, 0),
        (2**63 - 1, -1, 0),
        (2**32, 2**32, 2**32),  # words past the low half
        (3, 0, 2**62),  # the block number wraps
    ],
)
def test_sample_prior_uses_all_64_bits(device, seed, offset, first_row):
    arguments = (state(seed, offset, device), 3, 5, 20, first_row)
    gaussian, one_hot = ops.sample_prior(*arguments)
    oracle_gaussian, oracle_one_hot = reference.sample_prior(*arguments)
    assert_close(gaussian, oracle_gaussian)
    assert torch.equal(one_hot, oracle_one_hot)
    assert not torch.equal(gaussian, ops.sample_prior(state(0, 0, device), 3, 5, 20)[0])


@on_devices
def test_ln_1_is_0(device):
    block = ROW_OF_LN_1 * 97 + PAIR_OF_LN_1 // 2
    words = reference.philox4x32(torch.tensor([block, 0, 0, 0]), torch.tensor([0, 0]))
    word = words[PAIR_OF_LN_1 % 2 * 2]
    assert word >= 2**32 - 128 and reference.uniform(word) == 1
    for sample in (ops.sample_prior, reference.sample_prior):
        gaussian, _ = sample(state(0, 0, device), 1, 384, 20, ROW_OF_LN_1)
        assert gaussian.isfinite().all()
        assert (gaussian.view(192, 2)[PAIR_OF_LN_1] == 0).all()


@on_devices
def test_a_row_depends_on_its_index_alone(device):
    gaussian, one_hot = ops.sample_prior(state(3, 4, device), 100, 37, 20)
    for rows, first_row in ((1, 99), (33, 20), (64, 36)):
        part = ops.sample_prior(state(3, 4, device), rows, 37, 20, first_row)
        assert torch.equal(part[0], gaussian[first_row : first_row + rows])
        assert torch.equal(part[1], one_hot[first_row : first_row + rows])


@on_devices
def test_sample_prior_is_pure_and_takes_views(device):
    stored = torch.tensor([[7, 0], [9, 0]], device=device)
    draws = ops.sample_prior(stored[:, 0], 5, 6, 7)
    assert stored.tolist() == [[7, 0], [9, 0]]
    for drawn, again in zip(draws, ops.sample_prior(state(7, 9, device), 5, 6, 7), strict=True):
        assert torch.equal(drawn, again)


@on_devices
def test_normals_and_categories_are_distributed_as_told(device):
    gaussian, one_hot = ops.sample_prior(state(0, 0, device), 2000, 50, 20)
    assert scipy.stats.kstest(gaussian.flatten().cpu(), "norm").pvalue > 1e-3
    assert (one_hot.sum(1) == 1).all()
    assert scipy.stats.chisquare(one_hot.sum(0).cpu()).pvalue > 1e-3


@needs_kernels
def test_draws_have_the_same_bits_on_every_path(each_path):
    def run():
        draws = [ops.sample_prior(state(seed, 1), 41, dim, 20, 3) for seed in (0, -5) for dim in (1, 127, 384, 509)]
        draws.append(ops.sample_prior(state(0), 1, 384, 20, ROW_OF_LN_1))
        return [tensor for pair in draws for tensor in pair]

    first, *others = each_path(run).values()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_draws_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.sample_prior(state(0), 500, 384, 20))
    finally:
        torch.set_num_threads(threads)
    if ops.backend("cpu") == "reference":
        pytest.skip("PyTorch's own sums depend on the threads")
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_gpu
@needs_cuda_kernels
@pytest.mark.parametrize("gaussian_dim", [1, 5, 383, 384])
def test_cpu_and_cuda_normals_agree_bit_for_bit(gaussian_dim):
    for seed, first_row in ((0, 0), (-7, 2**40), (0, ROW_OF_LN_1)):
        on_cpu = ops.sample_prior(state(seed), 1000, gaussian_dim, 20, first_row)
        on_gpu = ops.sample_prior(state(seed, device="cuda"), 1000, gaussian_dim, 20, first_row)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(on_cpu, on_gpu, strict=True))


@needs_gpu
@needs_cuda_kernels
def test_cuda_draws_more_than_2_to_31_elements():
    rows = 2**31 // 384 + 2
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.skip("less than 10 GB of GPU memory free")
    gaussian, one_hot = ops.sample_prior(state(0, device="cuda"), rows, 384, 20)
    last = ops.sample_prior(state(0, device="cuda"), 3, 384, 20, rows - 3)
    assert torch.equal(gaussian[-3:], last[0]) and torch.equal(one_hot[-3:], last[1])


@on_devices
def test_prior_sampler_advances_its_offset_and_restores(device):
    prior = PriorSampler(5, 3, seed=-2).to(device)
    first, second = prior(4), prior(4)
    assert prior.rng_state.tolist() == [-2, 2]
    assert not torch.equal(first[0], second[0])
    resumed = PriorSampler(5, 3).to(device)
    resumed.load_state_dict(prior.state_dict())
    assert torch.equal(resumed(4)[0], prior(4)[0])


@on_devices
@pytest.mark.parametrize(
    ("rng_state", "sizes", "message"),
    [
        (torch.zeros(2), (1, 1, 1), "rng_state must be an int64 tensor"),
        (torch.zeros(3, dtype=torch.int64), (1, 1, 1), "rng_state must be an int64 tensor"),
        (torch.zeros(1, 2, dtype=torch.int64), (1, 1, 1), "rng_state must be an int64 tensor"),
        ((0, 0), (1, 1, 1), "rng_state must be an int64 tensor .* got tuple"),
        (torch.zeros(2, dtype=torch.int64), (0, 1, 1), "must be at least 1, got batch=0"),
        (torch.zeros(2, dtype=torch.int64), (1, -1, 1), "must be at least 1, got .*gaussian_dim=-1"),
        (torch.zeros(2, dtype=torch.int64), (1, 1, 0), "must be at least 1, got .*categories=0"),
        (torch.zeros(2, dtype=torch.int64), (1, 1, 1, -1), "first_row must not be negative, got -1"),
    ],
)
def test_sample_prior_says_what_is_wrong(device, rng_state, sizes, message):
    if isinstance(rng_state, torch.Tensor):
        rng_state = rng_state.to(device)
        if ops.backend(device) != "reference":  # nor may a direct call read past the end
            with pytest.raises(ValueError):
                torch.ops.maskbench.sample_prior(rng_state, *sizes)
    with pytest.raises(ValueError, match=message):
        ops.sample_prior(rng_state, *sizes)
