"""What the codec learns from: pieces of speech, spectra, phones and a discriminator; and its training as a whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recipes.nano.codec.answers import encode_answers
from recipes.nano.codec.ceiling import ceiling
from recipes.nano.codec.discriminator import Discriminator, adversarial_losses
from recipes.nano.codec.encode import SpeechCoder, encode
from recipes.nano.codec.phones import BLANK, PHONES, PhoneReader, phones_of, spellings
from recipes.nano.codec.reconstruction import first_vectors
from recipes.nano.codec.settings import CodecSettings
from recipes.nano.codec.spectral_distance import SpectralDistance
from recipes.nano.codec.speech_pool import Readings, SpeechPool
from recipes.nano.codec.training import new_codec, train
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.speech.store import Utterance, shard_path, shards, write_shard
from recipes.nano.talker.codes import read_codes
from recipes.nano.training.settings import TrainingSettings
from tests.recipes.small_codec import hum, hums, small_codec

CPU = torch.device("cpu")


def settings(steps: int, learning_rate: float = 1e-3, **others: object) -> CodecSettings:
    training = TrainingSettings(steps=steps, learning_rate=learning_rate, warm_up_steps=5, validations=1)
    small = {"pieces_per_batch": 4, "frames_per_piece": 8, "readings_per_batch": 4}
    return CodecSettings.model_validate({"training": training, **small, **others})


@pytest.fixture
def pool() -> SpeechPool:
    """Every sample tells where it stands."""
    spoken = [Utterance("", "slt", np.arange(start, start + 300, dtype=np.int16)) for start in (1_000, 2_000, 3_000)]
    return SpeechPool.of(spoken, CPU)


def test_pieces_are_unbroken_and_come_from_everywhere(pool: SpeechPool) -> None:
    pieces = (pool.pieces(500, 100) * 32768).round().long()
    spoken = pieces[(pieces > 0).all(1)]
    assert torch.equal(spoken.diff(), torch.ones_like(spoken.diff()))
    assert set((spoken[:, 0] // 1_000).tolist()) == {1, 2, 3}


def test_whole_utterances_end_in_silence(pool: SpeechPool) -> None:
    whole = (pool.whole(torch.tensor([2, 0]), 400) * 32768).round().long()
    assert whole[0, :300].tolist() == list(range(3_000, 3_300))
    assert whole[1, :300].tolist() == list(range(1_000, 1_300))
    assert not whole[:, 300:].any()


def test_no_speech_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(RecipeError, match="run the stage `speech`"):
        SpeechPool.of([], CPU)


def test_pieces_longer_than_all_speech_are_an_error(pool: SpeechPool) -> None:
    with pytest.raises(RecipeError, match="more speech"):
        pool.pieces(1, 24_000)


def test_phones_are_those_of_the_dictionary() -> None:
    phones = phones_of("Yellow cat!", spellings())
    assert phones is not None
    assert [PHONES[phone - 1] for phone in phones] == ["Y", "EH", "L", "OW", "K", "AE", "T"]


def test_sentences_with_unknown_words_and_long_ones_are_not_read() -> None:
    spoken = [
        Utterance("good morning", "slt", hum(100.0, 1.0)),
        Utterance("zzyzxq morning", "slt", hum(100.0, 1.0)),
        Utterance("good morning", "slt", hum(100.0, 3.0)),
    ]
    readings = Readings.of(spoken, spellings(), 2 * 24_000, CPU)
    assert readings.utterances.tolist() == [0]
    assert readings.phone_counts.tolist() == [len(["G", "UH", "D", "M", "AO", "R", "N", "IH", "NG"])]


def test_reading_loss_is_torchs() -> None:
    torch.manual_seed(0)
    reader, vectors = PhoneReader(8), torch.randn(3, 10, 8)
    frames, counts = torch.tensor([10, 7, 9]), torch.tensor([5, 3, 8])
    phones = torch.randint(1, len(PHONES) + 1, (3, 8))
    scores = reader(vectors).transpose(0, 1)
    expected = nn.functional.ctc_loss(scores, phones, frames * 2, counts, BLANK, "mean")
    torch.testing.assert_close(reader.loss(vectors, frames, phones, counts), expected)


def test_latents_follow_a_reader_only_once_it_reads(nano: Path) -> None:
    codec, reader = small_codec(nano), PhoneReader(64)
    samples = torch.from_numpy(hum(200.0, 1.0)).float()[None] / 32768
    task = torch.tensor([12]), torch.tensor([[3, 4]]), torch.tensor([2])

    def gradient() -> Tensor:
        loss = reader.loss(first_vectors(codec, samples, reader.trust()), *task)
        return torch.autograd.grad(loss, codec.encoder.latent.weight)[0]

    assert not gradient().any()
    reader.recent_loss.fill_(2.0)
    assert gradient().any()


def noise(seconds: float, seed: int) -> Tensor:
    return torch.randn(2, int(seconds * 24_000), generator=torch.Generator().manual_seed(seed)) * 0.1


def test_distance_is_nothing_to_itself_and_grows_with_noise() -> None:
    distance, sound = SpectralDistance(), noise(0.5, seed=0)
    nothing, little, much = (distance(sound + level * noise(0.5, seed=1), sound) for level in (0.0, 0.1, 1.0))
    assert max(nothing) == 0
    assert all(0 < small < large for small, large in zip(little, much, strict=True))


def test_each_side_learns_only_its_own() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator()
    decoded, recorded = noise(0.3, seed=0).requires_grad_(), noise(0.3, seed=1)
    losses = adversarial_losses(discriminator, decoded, recorded)
    losses.discriminator.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert decoded.grad is None
    taught = [parameter.grad.clone() for parameter in discriminator.parameters() if parameter.grad is not None]
    (losses.deception + losses.features).backward()  # type: ignore[no-untyped-call]
    assert decoded.grad is not None
    assert decoded.grad.abs().max() > 0
    for before, parameter in zip(taught, discriminator.parameters(), strict=True):
        assert torch.equal(before, parameter.grad)


def test_a_discriminator_learns_to_tell_noise_from_a_hum() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator()
    optimiser = torch.optim.Adam(discriminator.parameters(), 1e-3)
    recorded = torch.from_numpy(hum(300.0, 0.2)).float()[None] / 32768
    for step in range(15):
        losses = adversarial_losses(discriminator, noise(0.2, seed=step)[:1], recorded)
        optimiser.zero_grad()
        losses.discriminator.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert losses.discriminator < 1.0  # two where it cannot tell


def test_training_brings_speech_nearer(nano: Path, tmp_path: Path) -> None:
    codec, spoken, distance = small_codec(nano), hums(6), SpectralDistance()
    waves = [one.samples for one in spoken]
    before = ceiling(codec, distance, waves)["mel"]
    train(codec, spoken, settings(steps=25, learning_rate=3e-3), WorkFolder(tmp_path))
    assert ceiling(codec, distance, waves)["mel"] < 0.8 * before


def test_a_training_that_is_over_is_not_repeated(nano: Path, tmp_path: Path) -> None:
    first, second = small_codec(nano, seed=0), small_codec(nano, seed=1)
    for codec in (first, second):
        train(codec, hums(3), settings(steps=2), WorkFolder(tmp_path))
    expected = first.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.state_dict().items())


def test_both_phases_and_the_phones_train(nano: Path, tmp_path: Path) -> None:
    codec = small_codec(nano)
    before = codec.encoder.latent.weight.clone()
    adversarial = TrainingSettings(steps=1, learning_rate=1e-3)
    every_part = settings(steps=1, adversarial=adversarial, loss={"phones": 1.0})
    train(codec, hums(3), every_part, WorkFolder(tmp_path))
    assert {file.name for file in (tmp_path / "state").iterdir()} == {"codec.pt", "codec-adversarial.pt"}
    assert not torch.equal(codec.encoder.latent.weight, before)


def test_codes_keep_their_meaning_where_only_code2wav_is_trained(nano: Path, tmp_path: Path) -> None:
    codec, wave = small_codec(nano), hum(200.0, 1.0)
    codes, sound = encode(codec, [wave])[0], codec.decode(torch.zeros(1, 8, 16, dtype=torch.int64))
    train(codec, hums(3), settings(steps=2, only_code2wav=True), WorkFolder(tmp_path))
    assert np.array_equal(encode(codec, [wave])[0], codes)
    assert not torch.equal(codec.decode(torch.zeros(1, 8, 16, dtype=torch.int64)), sound)


def test_going_on_from_the_shipped_voice_begins_with_it(nano: Path) -> None:
    codec = new_codec(settings(steps=1, from_shipped=True), nano)
    wave = hum(200.0, 1.0)
    assert np.array_equal(encode(codec, [wave])[0], encode(SpeechCoder.load(), [wave])[0])
    shipped = load_file(nano / "model.safetensors")["code2wav.decoder.0.conv.weight"]
    assert torch.equal(codec.code2wav.state_dict()["decoder.0.conv.weight"], shipped.float())


@pytest.fixture
def answered(nano: Path, tmp_path: Path) -> WorkFolder:
    """A codec, and answers in two shards."""
    folder = WorkFolder(tmp_path)
    small_codec(nano).save(folder.codec)
    for index in range(2):
        write_shard(shard_path(folder.answers, index), hums(2 + index))
    return folder


def test_answers_are_encoded_shard_by_shard(answered: WorkFolder) -> None:
    encode_answers(answered)
    coded = [read_codes(shard) for shard in shards(answered.codes)]
    assert [len(shard) for shard in coded] == [2, 3]
    expected = encode(SpeechCoder.load(answered.codec), [hums(1)[0].samples])[0]
    assert np.array_equal(coded[1][0].codes, expected)
    assert (coded[1][0].text, coded[1][0].voice) == ("good morning", "slt")


def test_only_what_changed_is_encoded_again(answered: WorkFolder) -> None:
    encode_answers(answered)
    first, second = shards(answered.codes)
    written = first.stat().st_mtime_ns
    write_shard(shard_path(answered.answers, 1), hums(1))
    encode_answers(answered)
    assert first.stat().st_mtime_ns == written
    assert len(read_codes(second)) == 1


def test_codes_of_answers_that_are_gone_go_too(answered: WorkFolder) -> None:
    encode_answers(answered)
    shard_path(answered.answers, 1).unlink()
    encode_answers(answered)
    assert [shard.name for shard in shards(answered.codes)] == ["00000.npz"]


def test_encoding_without_a_codec_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run the stage `codec`"):
        encode_answers(WorkFolder(tmp_path))
