"""Every name that appears in a trace or a metric. GenAI and RPC names follow OpenTelemetry's conventions, as literals,
because the published constants are marked deprecated; what has no convention is `antiphon.*`."""

from typing import Final, Literal

StageName = Literal["gateway", "encoders", "thinker", "experts", "talker", "codec"]
STAGES: Final[tuple[StageName, ...]] = ("gateway", "encoders", "thinker", "experts", "talker", "codec")

# Spans inside a stage. A turn's root span is the HTTP server's; a call is a client span and a server span named
# "package.Service/Method".
SPAN_QUEUE: Final = "queue"
SPAN_ENCODE: Final = "encode"
SPAN_PREFILL: Final = "prefill"
SPAN_DECODE: Final = "decode"
# Of sampled steps whose experts are on shards: the step, and below it each call.
SPAN_EXPERT_STEP: Final = "experts.step"
SPAN_EXPERT_CALL: Final = "experts.call"
# Roots of their own, linked to the span in which their live session was opened.
SPAN_REALTIME_RESPONSE: Final = "realtime.response"
SPAN_REALTIME_TRANSCRIPTION: Final = "realtime.transcription"
SPAN_REALTIME_SPECULATION: Final = "realtime.speculation"

# Events: the first output of a stream.
EVENT_FIRST_TOKEN: Final = "antiphon.first_token"  # noqa: S105 - no password
EVENT_FIRST_FRAME: Final = "antiphon.first_frame"
EVENT_FIRST_PCM: Final = "antiphon.first_pcm"
EVENT_FIRST_BYTE: Final = "antiphon.first_byte"
# Another replica goes on with a call that has been answered in part.
EVENT_FAILOVER: Final = "antiphon.failover"

# Attributes.
STAGE: Final = "antiphon.stage"
FIRST_PACKET_PART: Final = "antiphon.first_packet.{part}_ms"
FIRST_PACKET_TOTAL: Final = "antiphon.first_packet.total_ms"
FRAME_COUNT: Final = "antiphon.frame_count"
# Within a spoken answer: for how long a listener who plays it as it comes has had nothing to play.
PLAYBACK_SILENT: Final = "antiphon.playback.silent_ms"
# Calls of expert shards in the steps that a request took part in: how many, (row, expert) pairs that they computed,
# calls whose pairs were asked of another copy, and for how long steps had nothing to do but wait.
EXPERT_CALLS: Final = "antiphon.experts.calls"
EXPERT_PAIRS: Final = "antiphon.experts.pairs"
EXPERT_RETRIES: Final = "antiphon.experts.retries"
EXPERT_WAIT: Final = "antiphon.experts.wait_ms"
# Of one call, and of the requests that shared its step.
EXPERT_LAYER: Final = "antiphon.experts.layer"
EXPERT_SHARD: Final = "antiphon.experts.shard"
STEP_REQUESTS: Final = "antiphon.step.requests"
# Media of a request that were encoded for an earlier one.
CACHED_MEDIA: Final = "antiphon.cached_media"
# What a client read in `x-request-id`.
REQUEST_ID: Final = "antiphon.request_id"
# On whose behalf; also the key under which it travels from process to process.
TENANT: Final = "antiphon.tenant"
RESUMED: Final = "antiphon.resumed"
ERROR_TYPE: Final = "error.type"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
# Of a live session.
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
# Of the input: computed for an earlier request.
GEN_AI_USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"

# Metrics (Prometheus spelling; seconds).
METRIC_STAGE_QUEUE: Final = "antiphon_stage_queue_seconds"
METRIC_STAGE_FIRST_OUTPUT: Final = "antiphon_stage_first_output_seconds"
METRIC_STAGE_TOTAL: Final = "antiphon_stage_total_seconds"
METRIC_FIRST_PACKET_PART: Final = "antiphon_first_packet_part_seconds"
METRIC_FIRST_AUDIO: Final = "antiphon_first_audio_seconds"
METRIC_PLAYBACK_SILENT: Final = "antiphon_playback_silent_seconds"
METRIC_MEDIA: Final = "antiphon_media"
METRIC_REALTIME_SESSIONS: Final = "antiphon_realtime_sessions"
METRIC_REALTIME_TURN_LATENCY: Final = "antiphon_realtime_turn_latency_seconds"
METRIC_SPECULATIVE_TURNS: Final = "antiphon_speculative_turns"
METRIC_PREPARATIONS: Final = "antiphon_preparations"
METRIC_REQUESTS: Final = "antiphon_requests"
METRIC_TENANT_REQUESTS: Final = "antiphon_tenant_turns"
METRIC_TENANT_TOKENS: Final = "antiphon_tenant_tokens"
METRIC_TENANT_STAGE_CALLS: Final = "antiphon_tenant_stage_calls"
METRIC_TENANT_STAGE_SECONDS: Final = "antiphon_tenant_stage_seconds"
METRIC_TENANT_REFUSED: Final = "antiphon_tenant_refused"
METRIC_USAGE_LOST: Final = "antiphon_usage_records_lost"
METRIC_TURNS_ACTIVE: Final = "antiphon_turns_active"
METRIC_TURNS_MOST: Final = "antiphon_turns_most"
METRIC_TOKENS: Final = "antiphon_tokens"
METRIC_PAGES: Final = "antiphon_pages"
METRIC_PAGES_EVICTED: Final = "antiphon_pages_evicted"
METRIC_ROWS_REUSED: Final = "antiphon_rows_reused"
METRIC_FAILOVERS: Final = "antiphon_failovers"
METRIC_CUT_JOURNALS: Final = "antiphon_cut_turn_journals"
METRIC_PREEMPTIONS: Final = "antiphon_preemptions"
METRIC_EXPERT_CALLS: Final = "antiphon_expert_calls"
METRIC_EXPERT_PAIRS: Final = "antiphon_expert_pairs"
METRIC_EXPERT_WAIT: Final = "antiphon_expert_wait_seconds"
METRIC_EXPERT_SHARDS: Final = "antiphon_expert_shards"
METRIC_EXPERTS_MISSING: Final = "antiphon_experts_missing"
METRIC_SHARD_QUEUED: Final = "antiphon_expert_shard_queued_seconds"
METRIC_SHARD_COMPUTED: Final = "antiphon_expert_shard_computed_seconds"
METRIC_SHARD_UTILISATION: Final = "antiphon_expert_shard_utilisation"
METRIC_SHARD_HELD: Final = "antiphon_expert_shard_held"
METRIC_SHARD_LINKS: Final = "antiphon_expert_shard_links"
METRIC_SHARD_CALLS: Final = "antiphon_expert_shard_calls"
METRIC_SHARD_PAIRS: Final = "antiphon_expert_shard_pairs"
METRIC_CACHED_TOKENS: Final = "antiphon_cached_prompt_tokens"
METRIC_STORAGE_SECONDS: Final = "antiphon_storage_seconds"
METRIC_STORAGE_UP: Final = "antiphon_storage_up"
METRIC_STORAGE_LOST: Final = "antiphon_storage_lost"

# The parts of a first packet, in the order in which they happen; they follow each other without a gap.
FirstPacketPart = Literal["prepare", "encoders", "thinker", "talker", "codec", "emit"]
FIRST_PACKET_PARTS: Final[tuple[FirstPacketPart, ...]] = ("prepare", "encoders", "thinker", "talker", "codec", "emit")
