"""Live sessions: `core` knows conversations and answers, `dialect` OpenAI's words; the rest connects them."""
