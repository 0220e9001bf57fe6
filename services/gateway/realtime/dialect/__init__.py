"""The GA form of OpenAI's realtime protocol: what clients send, what they are told."""
