"""Explanations of metrics, which the site's methods and the glossary show."""

from __future__ import annotations

METRICS: tuple[tuple[str, str, str], ...] = (
    (
        "word error rate, WER",
        "(S + I + D) ÷ N: substitutions, insertions and deletions over the words of "
        "the whole set's truth; can exceed 1",
        "NIST; alignment by jiwer",
    ),
    (
        "character error rate, CER",
        "the same of characters; it is the metric of languages without spaces",
        "compat/metrics/languages.py",
    ),
    (
        "chrF, BLEU",
        "of a whole set, as shares: character n-grams up to 6 with β = 2; word n-grams "
        "up to 4, of characters where no spaces stand between words",
        "sacreBLEU",
    ),
    (
        "exact share",
        "share of translations that are the reference's to the letter",
        "compat/metrics/translation.py",
    ),
    (
        "earliest divergence, equal (tokens)",
        "first step at which a decoder that follows its own words departs from the "
        "reference, and share of equal steps; shown, not judged",
        "compat/metrics/numerics.py",
    ),
    (
        "degradation",
        "the metric's fall behind the reference on the same inputs; of WER with no "
        "utterance counted beyond its words (capped_wer)",
        "",
    ),
    (
        "interval",
        "95 % bootstrap over utterances, 2,000 resamples; for degradation both "
        "systems on the same ones",
        "Bisani and Ney, 2004",
    ),
    (
        "no-worse share",
        "share of inputs with no more errors than the reference's (of stems: within 0.1 dB)",
        "",
    ),
    (
        "compression ratio",
        "bytes of a transcript ÷ those that zlib makes of it; above 2.4 the text loops",
        "openai-whisper",
    ),
    (
        "diarization error rate, DER",
        "missed, falsely found and confused speaker time ÷ true speaker time, without"
        " a collar, overlap scored",
        "",
    ),
    (
        "Jaccard error rate, JER",
        "mean over speakers of the share of their time, and of that given to them, that differs",
        "",
    ),
    (
        "equal error rate, EER",
        "of speaker trials: where as many targets are missed as non-targets are accepted",
        "",
    ),
    (
        "frame error rate",
        "frames wrongly said to hold speech or not ÷ frames scored",
        "",
    ),
    (
        "zero-shot accuracy, same label",
        "share of recordings whose nearest class (cosine to *This is a sound of "
        "{label}.*) is their own, or the reference's",
        "Wu et al., 2023",
    ),
    (
        "recall at k",
        "share of recordings, and of captions, with a right partner among the k nearest",
        "compat/metrics/retrieval.py",
    ),
    (
        "rank correlation",
        "Spearman's, between orders by case and reference",
        "",
    ),
    (
        "note F1, with offsets",
        "2 F ÷ (T + A), F of T true and A answered notes found: onset within 50 ms, pitch within "
        "50 cents; offset within 50 ms or a fifth of the note. Mean over recordings",
        "mir_eval",
    ),
    (
        "mean average precision, ROC AUC",
        "means over tags that some recordings have and some lack",
        "scikit-learn, macro",
    ),
    (
        "agreement (tags)",
        "share of tag decisions that are the reference's, by the same probe",
        "",
    ),
    (
        "cosine of a layer",
        "lowest over recordings, to the reference; worst_layer names the lowest, from 0",
        "",
    ),
    (
        "SNR",
        "10 log₁₀(signal ÷ noise power): signal is the reference less its mean over "
        "inputs, noise is device − reference; *worst* is the lowest of any utterance",
        "compat/metrics/numerics.py",
    ),
    (
        "error ratio",
        "rms(device − reference) ÷ (rms(oracle − reference) + ε · rms(signal)); near 1 the "
        "precision hurts, far above the backend is broken",
        "",
    ),
    (
        "cosine, maximum error",
        "of the arrays as they are",
        "",
    ),
    (
        "passing tolerance",
        "smallest t that numpy.allclose accepts as rtol and atol",
        "",
    ),
    (
        "equal share",
        "share of an output's integers (codes) that are the reference's",
        "",
    ),
    (
        "contrast",
        "smallest distance of two reference outputs, in dB of their size",
        "",
    ),
    (
        "latency",
        "seconds of the whole task, synchronised: median and its order-statistic "
        "interval, which covers it with at least 95 % from six rounds on and is minimum to "
        "maximum below",
        "David and Nagaraja, 7.1",
    ),
    (
        "RTF, RTFx",
        "processing time ÷ audio duration, and its inverse",
        "",
    ),
    (
        "p90, p95, p99",
        "given from 44, 90 and 459 rounds on",
        "David and Nagaraja, 7.1",
    ),
    (
        "time to first token, to first sound",
        "until the first generated token; until the first 0.2 s of a codec's stream",
        "",
    ),
    (
        "window decoded",
        "seconds of a codec's decoder per window",
        "",
    ),
    (
        "throughput",
        "items, and seconds of audio, per second by batch",
        "",
    ),
    (
        "others busy",
        "how many processors others kept busy during the rounds",
        "psutil",
    ),
    (
        "peak memory",
        "largest resident set of the worker; of a device, as the runtime reports it",
        "VmHWM and its like",
    ),
    (
        "model size",
        "bytes of the compiled graphs' weights",
        "",
    ),
    (
        "placement share",
        "share of compiled nodes (PyTorch: tensors) on the target",
        "the runtime's report",
    ),
    (
        "waveform SNR, SI-SDR",
        "10 log₁₀(‖s‖² ÷ ‖s − ŝ‖²); the same with s scaled to fit best",
        "Le Roux et al., 2019",
    ),
    (
        "SDR, SI-SDR improvement",
        "waveform SNR of a stem, mean over stems, then songs; SI-SDR less the mixture's",
        "Music Demixing Challenge 2021",
    ),
    (
        "fidelity",
        "waveform SNR of a stem against the reference's",
        "compat/metrics/separation.py",
    ),
    (
        "mel distance",
        "mean difference of log-mel spectrograms in dB over four windows (256 to 2048"
        " samples); deaf to phases",
        "compat/metrics/waveform.py",
    ),
    (
        "code agreement, reference distance",
        "share of codes that are the reference's; mel distance to the reference's audio",
        "compat/models/tasks/codec.py",
    ),
    (
        "mel distance (generation)",
        "of generated audio to the reference's, same prompt and noise; mean over prompts",
        "compat/models/tasks/generation.py",
    ),
    (
        "token agreement, first divergence",
        "share of the reference's tokens at the same step; share of steps before the "
        "first that differs",
        "compat/metrics/generation.py",
    ),
    (
        "finding (generation)",
        "a failure that the reference's answer has not: not finite, truncated, a "
        "channel missing or a copy, silent (below −80 dB), constant, clipped, "
        "repeating (within 20 dB), band-limited (upper half 30 dB weaker); "
        "same_output is another prompt's answer",
        "compat/metrics/generation.py",
    ),
    (
        "speed-up",
        "lower end of the fastest accurate CPU configuration's interval ÷ upper end of this one's",
        "compat/report/yardstick.py",
    ),
)
"""Metrics: name, formula or meaning, and source (literature, or the file that computes it)."""
