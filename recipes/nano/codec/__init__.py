"""The codec: 24 kHz speech to codes by our own encoder and quantiser, and back by Code2Wav."""
