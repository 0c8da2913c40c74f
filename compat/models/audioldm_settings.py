"""The networks of AudioLDM, and their settings under the names of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Mapping

from compat.models.parts.pipeline import Component, Settings

COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component(
        "transformers",
        "ClapTextModelWithProjection",
        {"vocab_size": 50_265, "pad_token_id": 1, "projection_dim": 512},
        # The factors are those of CLAP: sharper attention would multiply rounding errors from layer
        # to layer.
        {"query": 1.5, "key": 1.5},
        needless=("position_ids", "token_type_ids"),
    ),
    "unet": Component(
        "diffusers",
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "in_channels": 8,
            "out_channels": 8,
            "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3],
            "up_block_types": [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"],
            "block_out_channels": [128, 256, 384, 640],
            "cross_attention_dim": [128, 256, 384, 640],
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": 512,
            "class_embeddings_concat": True,
        },
        # Generated weights remove no noise: latents grow to forty times the noise. Without these
        # factors, neither a step's time nor the sentence, a vector of length one, would have a
        # visible effect beside them.
        {"conv_in": 0.1, "time_embedding": 2.0, "class_embedding": 40.0},
        {"class_embed_type": "simple_projection", "class_embeddings_concat": True},
    ),
    "vae": Component(
        "diffusers",
        "AutoencoderKL",
        {
            "sample_size": 512,
            "in_channels": 1,
            "out_channels": 1,
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [128, 256, 512],
            "latent_channels": 8,
            "layers_per_block": 2,
            "scaling_factor": 0.9227914214134216,
        },
        fixed={"out_channels": 1},
    ),
    "vocoder": Component(
        "transformers",
        "SpeechT5HifiGan",
        {
            "model_in_dim": 64,
            "sampling_rate": 16_000,
            "upsample_initial_channel": 1024,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "normalize_before": False,
        },
        # With louder branches, the final tanh would be near one almost everywhere.
        {"resblocks": 0.7},
        {"sampling_rate": 16_000},
    ),
    "scheduler": Component(
        "diffusers",
        "DDIMScheduler",
        {
            "num_train_timesteps": 1000,
            "beta_start": 0.0015,
            "beta_end": 0.0195,
            "steps_offset": 1,
            "set_alpha_to_one": False,
        },
        fixed={
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "prediction_type": "epsilon",
            "rescale_betas_zero_snr": False,
            "thresholding": False,
            "timestep_spacing": "leading",
            "trained_betas": None,
        },
    ),
}
DEFAULTS: Mapping[str, Settings] = {
    "text_encoder": {"vocab_size": 50_265, "pad_token_id": 1, "projection_dim": 512},
    "vocoder": {"model_in_dim": 80, "sampling_rate": 16_000, "upsample_rates": [4, 4, 4, 4]},
}
"""The library's defaults for settings that a checkpoint does not name."""
SMALL: Mapping[str, Settings] = {
    "text_encoder": {
        "vocab_size": 5_000,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "projection_dim": 128,
    },
    "unet": {
        "block_out_channels": [32, 64, 96, 160],
        "cross_attention_dim": [32, 64, 96, 160],
        "projection_class_embeddings_input_dim": 128,
        "layers_per_block": 1,
    },
    "vae": {"block_out_channels": [32, 64, 128], "layers_per_block": 1},
    "vocoder": {"upsample_initial_channel": 256},
}
"""What differs from the published settings in the smallest size. It has every operator, a quarter
of the width, half the layers of each block, and a short sentence encoder. It is for pages and
emulators, which take seconds for the work that a processor does in milliseconds."""
