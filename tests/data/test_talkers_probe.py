"""What the drawn lips carry: visemes of unseen talkers and the sound's timing; and what they do not: the voice."""

import numpy as np
import pytest
import torch
from torch import nn

from avkit.data import pairing
from avkit.data.labels import read_labels, read_mixtures, read_mouth
from avkit.data.mixing import read_wav


@pytest.fixture(scope="module")
def table(probe_corpus):
    return read_labels(probe_corpus)


@pytest.fixture(scope="module")
def lips(probe_corpus, table):
    """(U, 50, 44, 44) uint8: every second pixel of the centre crops."""
    return np.stack([read_mouth(probe_corpus, utterance)[:, 4:92:2, 4:92:2] for utterance in table.ids])


def _three_frames(clips: np.ndarray) -> torch.Tensor:
    """(U * 50, 3, 44, 44) each frame with its neighbours, normalised by clip."""
    x = torch.tensor(clips, dtype=torch.float32)
    x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1)
    x = torch.cat([x[:, :1], x, x[:, -1:]], 1)
    return torch.stack([x[:, :-2], x[:, 1:-1], x[:, 2:]], 2).flatten(0, 1)


def test_visemes_of_unseen_talkers_can_be_read(table, lips):
    """A small network reads 15 classes far better than naming the commonest: talkers and sentences are all new."""
    torch.manual_seed(0)
    train, test = table.of_split("tr"), table.of_split("tt")
    assert not {table.talkers[i] for i in train} & {table.talkers[i] for i in test}
    x, y = _three_frames(lips[train]), torch.tensor(table.viseme[train]).flatten()
    reader = nn.Sequential(
        nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * 25, 15),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(reader.parameters(), 3e-3)
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(reader(x[batch]), y[batch]).backward()
            optimiser.step()
    reader.eval()
    truth = torch.tensor(table.viseme[test]).flatten()
    with torch.no_grad():
        read = reader(_three_frames(lips[test])).argmax(1)
    commonest = (truth == y.mode().values).float().mean()
    recall = torch.stack([(read[truth == c] == c).float().mean() for c in truth.unique()])
    assert (read == truth).float().mean() > commonest + 0.15
    assert recall.mean() > 3 / 15
    closed = truth == 1  # p b m
    assert (read[closed] <= 1).float().mean() > 0.6  # read as shut: silence or p b m


def _ridge(x: np.ndarray, y: np.ndarray, z: np.ndarray, weight: float = 30.0) -> np.ndarray:
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, z = (x - mean) / scale, (z - mean) / scale
    kernel = x @ x.T + weight * x.shape[1] / 100 * np.eye(len(x))
    return z @ (x.T @ np.linalg.solve(kernel, y - y.mean())) + y.mean()


def test_still_lips_do_not_tell_the_voice(table, lips):
    """From one frame a linear reader gets the skin right and the voice's pitch not: faces are drawn apart from voices."""
    still = lips[:, 10, ::2, ::2].reshape(len(table), -1).astype(float)
    pitch = np.array([pairing.pitch_of(talker) for talker in table.talkers])
    skin = np.array([row["face"]["skin"] for row in table.rows])
    half = np.arange(len(table)) % 2 == 0

    def score(values: np.ndarray) -> float:
        high = (values > np.median(values)) * 2.0 - 1
        return float(np.mean(np.sign(_ridge(still[half], high[half], still[~half])) == high[~half]))

    chance = 3 * 0.5 / np.sqrt((~half).sum())
    assert score(skin) > 0.85  # the reader works
    assert abs(score(pitch) - 0.5) < chance


def test_still_lips_do_not_tell_the_talker(table, lips):
    """The face most like a given one is another utterance of the same talker no more often than chance has it."""
    still = lips[:, 10, ::2, ::2].reshape(len(table), -1).astype(float)
    still = (still - still.mean(0)) / (still.std(0) + 1e-6)
    distance = ((still[:, None] - still[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    talkers = np.array(table.talkers)
    same = talkers[:, None] == talkers
    np.fill_diagonal(same, False)
    chance = same.sum(1).mean() / (len(table) - 1)
    hits = (talkers[distance.argmin(1)] == talkers).mean()
    assert hits < chance + 3 * np.sqrt(chance * (1 - chance) / len(table))


def test_the_lag_between_lips_and_sound_is_found(probe_corpus, table):
    """Darkness of the mouth, read from the crops, follows loudness best when neither is shifted (one frame allowed)."""
    loudness, darkness = [], []
    for row in read_mixtures(probe_corpus):
        for k in "12":
            path = probe_corpus / f"audio/wav16k/min/{row['split']}/s{k}/{row['name']}.wav"
            power = (read_wav(path).astype(float).reshape(50, 640) ** 2).mean(1)
            frames = read_mouth(probe_corpus, row[f"utt{k}"])[:, 28:84, 24:72].astype(float)
            loudness.append(np.log(np.sqrt(power) + 30))
            darkness.append((np.median(frames, 0) - frames - 8).clip(0).mean((1, 2)))

    def centred(values: list) -> np.ndarray:
        x = np.array(values)
        x = x - x.mean(1, keepdims=True)
        return x / (x.std(1, keepdims=True) + 1e-9)

    sound, lips = centred(loudness), centred(darkness)

    def best_lag(sound: np.ndarray) -> int:
        """Frames by which the lips come after the sound."""
        pairs = {k: (lips[:, max(0, k) : 50 + min(0, k)], sound[:, max(0, -k) : 50 - max(0, k)]) for k in range(-8, 9)}
        return max(pairs, key=lambda k: np.corrcoef(pairs[k][0].ravel(), pairs[k][1].ravel())[0, 1])

    assert abs(best_lag(sound)) <= 1
    assert abs(best_lag(np.roll(sound, -5, axis=1)) - 5) <= 1  # a shift of five frames is found as such
