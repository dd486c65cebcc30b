"""CompressAI's command-line tools: its options and its JSON, on what Latens measures with.

Each module has ``main(arguments)``, and is ``compressai.utils.<name>`` and ``compressai.utils.<name>.__main__``.
Numbers are defined as there: rates are of the strings alone, without the headers that a file needs, and images are
padded with zeros. ``latens eval``, ``bench``, ``find`` and ``plot`` say more.
"""
