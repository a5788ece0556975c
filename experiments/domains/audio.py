"""Spoken-like syllables: a targeted Carlini-Wagner attack, and how loud its changes are.

Command:   python experiments/domains/audio.py
Hardware:  one core, a minute.
Claim:     a change that is far less loud than the clip makes the network hear the syllable that the
           attacker names; random noise as loud does not.
Measured:  results/domains/audio.json and .png.
Source:    Carlini & Wagner, "Audio adversarial examples", 2018, whose distortion in dB is
           20 log10(max |change| / max |x|). Vowels: two resonances at the formants that Peterson &
           Barney (1952) measured for men, excited by the pulses of a random pitch, in random noise.
"""

from pathlib import Path

import flax.linen as nn
import frame
import jax
import numpy as np
from scipy.signal import lfilter, spectrogram

from robustjax import report
from robustjax.attacks import CarliniWagnerLinf, perturb
from robustjax.threats import Linf

RATE, LENGTH = 8000, 2048  # samples a second, and of a clip: a quarter of a second
FORMANTS = {"i": (270, 2290), "e": (530, 1840), "a": (730, 1090), "o": (570, 840), "u": (300, 870)}
SYLLABLES = [a + b for a in FORMANTS for b in FORMANTS if a != b]  # twenty glides
TRAIN, CLIPS, STEPS = 2000, 16, 400
ROUNDS, ATTACK_STEPS = 8, 40
SHOWN = ("clip", "changed", "syllables")  # of the first seed


def clip(rng, syllable):
    """A waveform (T,): pulses through two resonances that glide from one vowel to the other."""
    pitch = rng.uniform(90, 180) * (1 + rng.uniform(-0.2, 0.2) * np.linspace(0, 1, LENGTH))
    wave = (np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) > 0).astype(float)
    wave = wave + 0.01 * rng.normal(size=LENGTH)
    turn = 1 / (1 + np.exp(-(np.arange(LENGTH) / LENGTH - rng.uniform(0.4, 0.6)) * 20))
    voices = []
    for vowel in syllable:
        voice = wave
        for formant in FORMANTS[vowel] * rng.uniform(0.92, 1.08, 2):
            radius = np.exp(-np.pi * 90 / RATE)  # a bandwidth of 90 Hz
            angle = 2 * np.pi * formant / RATE
            voice = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], voice)
        voices.append(voice / np.std(voice))
    sound = (1 - turn) * voices[0] + turn * voices[1] + rng.normal(0, 0.02, LENGTH)
    return (rng.uniform(0.3, 0.9) * sound / np.abs(sound).max()).astype(np.float32)


class Net(nn.Module):
    """Strided convolutions over time, and the means of four quarters of it."""

    @nn.compact
    def __call__(self, x):
        for width, stride, channels in ((64, 16, 16), (8, 4, 24), (4, 2, 48)):
            x = nn.relu(nn.Conv(channels, (width,), (stride,))(x))
        x = x.reshape(len(x), 4, -1, x.shape[-1]).mean(2)
        return nn.Dense(len(SYLLABLES))(x.reshape(len(x), -1))


def decibels(change, x):
    return 20 * np.log10(np.abs(change).max((1, 2)) / np.abs(x).max((1, 2)))


def measured(seed):
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    labels = rng.integers(len(SYLLABLES), size=TRAIN + CLIPS)
    x = np.stack([clip(rng, SYLLABLES[k]) for k in labels])[..., None]
    model = frame.trained(Net(), key, x[:TRAIN], labels[:TRAIN], STEPS)
    x, y = x[TRAIN:], labels[TRAIN:]
    targets = (y + rng.integers(1, len(SYLLABLES), CLIPS)) % len(SYLLABLES)
    threat = Linf(float("inf"), bounds=(-1.0, 1.0))
    attack = CarliniWagnerLinf(threat, steps=ATTACK_STEPS, rounds=ROUNDS)
    x_adv = perturb(attack, model, key, x, y, targets=targets)
    change = x_adv - x
    size = np.abs(change).max(1, keepdims=True)
    noise = size * rng.choice([-1, 1], x.shape).astype(np.float32)
    heard, random = np.asarray(model(x_adv)).argmax(1), np.asarray(model(x + noise)).argmax(1)
    hit = heard == targets
    return {
        "accuracy": frame.accuracy(model, x, y),
        "target_reached": hit.mean(),
        "median_db": np.median(decibels(change, x)[hit]),
        "target_reached_by_noise": (random == targets).mean(),
        "accuracy_on_noise": (random == y).mean(),
        "clip": x[0, :, 0],
        "changed": x_adv[0, :, 0],
        "syllables": (y[0], targets[0]),
    }


def main() -> dict:
    found = frame.over_seeds(measured)
    shown = {name: np.array(found.pop(name)["seeds"][0]) for name in SHOWN}
    return found | {"arrays": shown}


def draw(results: dict, png: Path) -> None:
    """The waveforms over each other, and the spectrograms of the clip and of the change."""
    x, x_adv, named = (results["arrays"][name] for name in SHOWN)
    spoken, heard = (SYLLABLES[label] for label in named)
    time = 1000 * np.arange(LENGTH) / RATE
    with report.figure(png, 3, 1, (3.6, 3.0)) as axes:
        axes[0].plot(time, x, color=frame.GIVEN, linewidth=0.8, label=f'clip, "{spoken}"')
        axes[0].plot(
            time, x_adv - x, color=frame.ATTACK, linewidth=0.8, label=f'change to "{heard}"'
        )
        axes[0].set(xlabel="time, ms", ylabel="amplitude", title="Waveforms", ylim=(-1, 1))
        axes[0].legend()
        for ax, wave, title in ((axes[1], x, "Clip"), (axes[2], x_adv - x, "Change")):
            hertz, seconds, power = spectrogram(wave, RATE, nperseg=128, noverlap=96)
            level = 10 * np.log10(power + 1e-12)
            image = ax.pcolormesh(1000 * seconds, hertz, level, vmin=-110, vmax=-40, cmap="magma")
            ax.set(xlabel="time, ms", ylabel="frequency, Hz", title=title)
            ax.grid(False)
        ax.figure.colorbar(image, ax=axes[1:], label="power, dB")


if __name__ == "__main__":
    frame.run(__file__, __doc__, main, draw, "scipy")
