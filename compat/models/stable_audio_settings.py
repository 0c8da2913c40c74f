"""The networks of Stable Audio Open, and their settings under the names of their libraries."""

from __future__ import annotations

from collections.abc import Mapping

from compat.models.parts import t5
from compat.models.parts.pipeline import Component, Settings

# Factor of the random frequencies by which the network embeds a time. They have a standard
# deviation of one; generated vectors would have a smaller one.
FREQUENCIES = 50 * 3**0.5
COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component("transformers", "T5EncoderModel", t5.BASE, t5.GAINS),
    "projection_model": Component(
        "diffusers",
        "StableAudioProjectionModel",
        {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512},
        {"positional_embedding.0.weights": FREQUENCIES},
    ),
    "transformer": Component(
        "diffusers",
        "StableAudioDiTModel",
        {
            "sample_size": 1024,
            "in_channels": 64,
            "out_channels": 64,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "num_key_value_attention_heads": 12,
            "cross_attention_dim": 768,
            "cross_attention_input_dim": 768,
            "global_states_input_dim": 1536,
            "time_proj_dim": 256,
        },
        # With nearly uniform attention, every prompt would get the same answer. The small output
        # factor is needed because guidance multiplies the difference of two answers by seven, and
        # latents would grow to hundreds.
        {
            "time_proj.": FREQUENCIES,
            "timestep_proj": 3.0,
            "attn2.to_out": 4.0,
            "attn2.": 3.0,
            "attn1.to_out": 2.0,
            "attn1.to_v": 2.0,
            "attn1.": 3.0,
            "proj_out": 0.02,
        },
    ),
    "vae": Component(
        "diffusers",
        "AutoencoderOobleck",
        {
            "encoder_hidden_size": 128,
            "decoder_channels": 128,
            "decoder_input_channels": 64,
            "downsampling_ratios": [2, 4, 4, 8, 8],
            "channel_multiples": [1, 2, 4, 8, 16],
            "audio_channels": 2,
            "sampling_rate": 44_100,
        },
        # The sine of large values loses digits: with louder branches the SNR of float32 would be
        # only 79 dB.
        {"decoder.conv2": 1.0, "conv2": 0.3, "conv1": 0.5},
        fixed={"sampling_rate": 44_100, "audio_channels": 2},
    ),
    "scheduler": Component(
        "diffusers",
        "CosineDPMSolverMultistepScheduler",
        {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0},
        fixed={
            "sigma_schedule": "exponential",
            "solver_order": 2,
            "prediction_type": "v_prediction",
            "solver_type": "midpoint",
            "euler_at_final": False,
            "final_sigmas_type": "zero",
        },
    ),
}
DEFAULTS: Mapping[str, Settings] = {
    "text_encoder": {"vocab_size": 32_128, "d_model": 512, "pad_token_id": 0}
}
"""The library's defaults for settings that a checkpoint does not name."""
TWO_LAYERS: Mapping[str, Settings] = {"transformer": {"num_layers": 2}}
"""What differs from the published settings in a size with two of the 24 layers."""
SMALL: Mapping[str, Settings] = {
    "text_encoder": {
        "vocab_size": 5_000,
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 2,
        "num_heads": 4,
    },
    "projection_model": {"text_encoder_dim": 128, "conditioning_dim": 128},
    "transformer": {
        "num_layers": 4,
        "attention_head_dim": 32,
        "num_attention_heads": 8,
        "num_key_value_attention_heads": 4,
        "cross_attention_dim": 128,
        "cross_attention_input_dim": 128,
        "global_states_input_dim": 256,
    },
    "vae": {"encoder_hidden_size": 16, "decoder_channels": 16},
}
"""What differs in the smallest size. It is for pages and emulators, which take seconds for the work
that a processor does in milliseconds."""
