"""Names in checkpoints of v-iashin/MDVC: `SubsAudioVideoTransformer`."""

import re

# Names here -> names there, applied one after the other.
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^speech_words\.", "src_emb_subs.embedder."),
        (r"^words\.(\w+)\.", r"trg_emb_\1.embedder."),
        (r"^encoders\.(\w+)\.layers\.", r"encoder_\1.enc_layers."),
        (r"^decoders\.(\w+)\.layers\.", r"decoder_\1.dec_layers."),
        (r"^fusion\.", "generator.linear."),
        (r"^generator\.(weight|bias)$", r"generator.linear2.\1"),
        (r"\.(self_)?attention\.query\.", ".self_att.linears.0."),
        (r"\.(self_)?attention\.key\.", ".self_att.linears.1."),
        (r"\.(self_)?attention\.value\.", ".self_att.linears.2."),
        (r"\.(self_)?attention\.output\.", ".self_att.linears.3."),
        (r"\.stream_attention\.query\.", ".enc_att.linears.0."),
        (r"\.stream_attention\.key\.", ".enc_att.linears.1."),
        (r"\.stream_attention\.value\.", ".enc_att.linears.2."),
        (r"\.stream_attention\.output\.", ".enc_att.linears.3."),
        (r"\.feed\.rise\.", ".feed_forward.fc1."),
        (r"\.feed\.fall\.", ".feed_forward.fc2."),
        (r"\.norms\.(\d)\.", r".res_layers.\1.norm."),
    )
)


def published_key(key: str) -> str:
    """What the published checkpoint calls the entry `key` of our network, without `module.`."""
    for ours, theirs in _RENAMED:
        key = ours.sub(theirs, key)
    return key
