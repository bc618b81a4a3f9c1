"""Names in state dicts of `model.masn.MASN`, ahjeongseo/MASN-pytorch."""

import re

# Entries of published checkpoints that this network computes, or that nothing reads.
NOT_READ = re.compile(
    r"compress_(appr|motion)_(local|global)\.weight"
    r"|sentence_encoder\.compress_hn_layers(_bi)?\.weight|pos_(location_encoding|enc)\.pe"
)

# Names here -> names there, applied one after the other.
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^appearance\.", "appr."),
        (r"^words\.", "glove."),
        (r"^word_projection\.", "embedding_proj.1."),
        (r"^question_encoder\.lstm\.", "sentence_encoder.rnn."),
        (r"^question_encoder\.output\.", "sentence_encoder.compress_output."),
        (r"^question_encoder\.hidden\.", "sentence_encoder.compress_hn_bi."),
        (r"^box_code\.", "bbox_location_encoding."),
        (r"^(appr|motion)\.project_(local|global)\.weight", r"compress_\1_\2.weight_raw"),
        (r"^(appr|motion)\.local\.", r"\1_local_proj."),
        (r"^(appr|motion)\.node\.", r"\1_v."),
        (r"^(appr|motion)\.graph\.edges\.0\.", r"\1_adj.edge_layer_1."),
        (r"^(appr|motion)\.graph\.edges\.1\.", r"\1_adj.edge_layer_2."),
        (r"^(appr|motion)\.graph\.layers\.(\d+)\.", r"\1_gcn.layers.\2.weight."),
        (r"\.attention\.bias$", "_vq_interact.v_att.logits.h_bias"),
        (r"\.attention\.gain$", "_vq_interact.v_att.logits.h_mat_g"),
        (r"\.attention\.direction$", "_vq_interact.v_att.logits.h_mat_v"),
        (r"\.attention\.nodes\.", "_vq_interact.v_att.logits.v_net.main.1."),
        (r"\.attention\.words\.", "_vq_interact.v_att.logits.q_net.main.1."),
        (r"\.attention\.glimpse_nodes\.(\d+)\.", r"_vq_interact.b_net.\1.v_net.main.1."),
        (r"\.attention\.glimpse_words\.(\d+)\.", r"_vq_interact.b_net.\1.q_net.main.1."),
        (r"\.attention\.updates\.(\d+)\.", r"_vq_interact.q_prj.\1.main.1."),
        (r"\.gain$", ".weight_g"),
        (r"\.direction$", ".weight_v"),
        (r"^fusion\.(query|key|value|norm)\.appearance\.", r"fusion.\1.appr."),
        (r"^fusion\.(query|key|value|norm)\.both\.", r"fusion.\1.all."),
        (r"^fusion\.query\.(\w+)\.", r"motion_appr_fusion.\1_att_score.linear_q."),
        (r"^fusion\.key\.(\w+)\.", r"motion_appr_fusion.\1_att_score.linear_k."),
        (r"^fusion\.value\.(\w+)\.", r"motion_appr_fusion.\1_linear.0."),
        (r"^fusion\.norm\.(\w+)\.weight_g$", r"motion_appr_fusion.\1_norm.a_2"),
        (r"^fusion\.norm\.(\w+)\.bias$", r"motion_appr_fusion.\1_norm.b_2"),
        (r"^fusion\.out_norm\.weight_g$", "motion_appr_fusion.norm.a_2"),
        (r"^fusion\.out_norm\.bias$", "motion_appr_fusion.norm.b_2"),
        (r"^fusion\.question_query\.", "motion_appr_fusion.ques_guide_att.linear_q."),
        (r"^fusion\.pool_key\.", "motion_appr_fusion.ques_guide_att.linear_k."),
        (r"^fusion\.feed_in\.", "motion_appr_fusion.ffn.mlp.fc.linear."),
        (r"^fusion\.feed_out\.", "motion_appr_fusion.ffn.mlp.linear."),
        (r"^pool\.inner\.", "attflat.mlp.fc.linear."),
        (r"^pool\.score\.", "attflat.mlp.linear."),
        (r"^pool\.merge\.", "attflat.linear_merge."),
        (r"^output\.", "fc."),
    )
)


def published_key(key: str) -> str:
    """What the published checkpoint calls the entry `key` of our network."""
    for ours, theirs in _RENAMED:
        key = ours.sub(theirs, key)
    return key
