"""Standardised frames: the mean frame is taken away, and what differs is in deviations."""

from functools import partial

import pytest
import torch

from noisynet.networks import FramesTorso, MLPTorso, NatureTorso, make_torso
from noisynet.networks.image_torsos import whole_pixels


def standardised(shape: tuple[int, ...] = (2, 40, 44)) -> FramesTorso:
    torso = make_torso("nature", shape, (), standardise_frames=True)
    assert isinstance(torso, NatureTorso)
    return torso


@pytest.mark.parametrize("stack", [1, 3, 4, 5])
def test_a_pixels_bytes_stand_side_by_side_in_the_stacks_order(stack: int) -> None:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, stack, 5, 6), dtype=torch.uint8)
    frames[0, 0, :, 0, 0], frames[0, 0, :, 0, 1] = 255, 0
    for given in (frames, frames[:, ::2, :, 1:].expand(2, 2, -1, -1, -1)):
        pixels = whole_pixels(given)
        assert torch.equal(pixels.view(torch.uint8), given.movedim(-3, -1))


def test_frames_become_distances_from_the_mean_frame_in_deviations() -> None:
    """Two frames: all 100, but for one pixel of 100 and 120. Its mean is 110, its variance 100."""
    torso = standardised()
    frames = torch.full((2, 1, 40, 44), 100, dtype=torch.uint8)
    frames[1, 0, 3, 7] = 120
    torso.measure_frames(frames)
    deviation = (100 / (40 * 44)) ** 0.5
    assert torso.frame_mean[:, 3, 7].tolist() == pytest.approx([110 / 255] * 2)
    assert torso.frame_deviation.item() == pytest.approx(deviation / 255)
    seen = frames[:1].repeat(1, 2, 1, 1)
    seen[0, 0, 0, 1] = 101
    seen[0, 1, 0, 2] = 99
    prepared = torso.prepare(seen)
    assert prepared.shape == (1, 2, 40, 44)
    assert prepared[0, 0, 0, 1].item() == pytest.approx(1 / deviation, rel=1e-4)
    assert prepared[0, 1, 0, 2].item() == pytest.approx(-1 / deviation, rel=1e-4)
    assert prepared[0, :, 3, 7].tolist() == [-5, -5]  # 10 / 0.24 = 42 deviations, bounded
    assert prepared[0, :, 5:].abs().max().item() < 1e-4


def test_measured_frames_have_mean_zero_and_deviation_one() -> None:
    torch.manual_seed(0)
    torso = standardised((4, 40, 44))
    frames = torch.randint(60, 200, (500, 1, 40, 44), dtype=torch.uint8)
    torso.measure_frames(frames)
    prepared = torso.prepare(frames.expand(-1, 4, -1, -1)).double()
    assert prepared.mean((0, 1)).abs().max() < 1e-4
    assert prepared.var((0, 1), correction=0).mean().item() == pytest.approx(1, abs=1e-5)
    reference = frames.double()
    assert torso.frame_deviation.item() * 255 == pytest.approx(
        reference.var(0, correction=0).mean().sqrt().item()
    )


def test_colours_have_means_of_their_own() -> None:
    torso = standardised((3, 40, 44))
    images = torch.full((2, 3, 40, 44), 10, dtype=torch.uint8)
    images[1] += 20
    images += torch.tensor([0, 100, 200], dtype=torch.uint8)[:, None, None]
    torso.measure_frames(images)
    assert torso.frame_mean[:, 5, 5].mul(255).tolist() == pytest.approx([20, 120, 220])
    assert torso.frame_deviation.item() == pytest.approx(10 / 255)
    assert torch.allclose(torso.prepare(images[1]), torch.ones(3, 40, 44), atol=1e-4)


def test_bfloat16_is_of_the_distance_and_not_of_the_brightness() -> None:
    """A pixel that differs by one grey of 255 in a bright frame keeps its distance to 8 bits."""
    torso = standardised()
    frames = torch.full((2, 1, 40, 44), 250, dtype=torch.uint8)
    frames[1, 0, 0] = 249
    torso.measure_frames(frames)
    seen = frames[1:].repeat(1, 2, 1, 1)
    exact = torso.prepare(seen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = torso.prepare(seen)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), exact, rtol=2**-8, atol=1e-4)


def test_what_was_measured_is_part_of_the_network_and_not_learned() -> None:
    torso, other = standardised(), standardised()
    torso.measure_frames(torch.randint(0, 256, (9, 1, 40, 44), dtype=torch.uint8))
    other.load_state_dict(torso.state_dict())
    seen = torch.randint(0, 256, (3, 2, 40, 44), dtype=torch.uint8)
    assert torch.equal(other(seen), torso(seen))
    plain = NatureTorso((2, 40, 44))
    assert {name for name, _ in torso.named_parameters()} == set(plain.state_dict())
    assert torch.equal(torso.prepare(torso.prepare(seen)), torso.prepare(seen))


def test_frames_that_cannot_be_standardised() -> None:
    torso = standardised()
    with pytest.raises(ValueError, match="all the same"):
        torso.measure_frames(torch.full((3, 1, 40, 44), 7, dtype=torch.uint8))
    bytes_of = partial(torch.zeros, dtype=torch.uint8)
    for frames in (
        bytes_of(3, 1, 40, 40), bytes_of(3, 40, 44), bytes_of(3, 4, 40, 44), bytes_of(0, 1, 40, 44),
        torch.rand(3, 1, 40, 44),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"got .*, expected \(N, 1 or 2, 40, 44\) of uint8"):
            torso.measure_frames(frames)
    with pytest.raises(ValueError, match="takes frames as they are"):
        NatureTorso((2, 40, 44)).measure_frames(bytes_of(3, 1, 40, 44))
    for kind, shape in (("mlp", (6,)), ("minatar", (4, 10, 10)), ("auto", (6,))):
        with pytest.raises(ValueError, match="standardise_frames: got true, expected false"):
            make_torso(kind, shape, (), standardise_frames=True)
    assert isinstance(make_torso("auto", (6,), ()), MLPTorso)
