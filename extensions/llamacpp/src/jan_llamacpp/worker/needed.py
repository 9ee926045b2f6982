"""What the worker takes by name from the bindings `llama_cpp.llama_cpp`; a test reads the names off its modules.

Engines outlive updates of this software. One that lacks a name is known for it when it is loaded, not when a request
comes that needs it. What a function or a structure looks like is not compared.
"""

from __future__ import annotations

__all__ = ["NEEDED", "missing_in"]

_NAMES = """
    LLAMA_FLASH_ATTN_TYPE_DISABLED LLAMA_LOAD_MODE_MMAP LLAMA_LOAD_MODE_NONE LLAMA_TOKEN_ATTR_CONTROL
    LLAMA_TOKEN_ATTR_UNKNOWN ggml_abort_callback ggml_backend_sched_eval_callback llama_adapter_lora_init
    llama_adapter_lora_p_ctypes llama_backend_init llama_batch llama_context_default_params llama_decode
    llama_encode llama_free llama_get_causal_attn llama_get_embeddings llama_get_embeddings_seq llama_get_memory
    llama_init_from_model llama_model_chat_template llama_model_default_params llama_model_free
    llama_model_get_vocab llama_model_has_decoder llama_model_has_encoder llama_model_is_hybrid
    llama_model_is_recurrent llama_model_load_from_file llama_model_n_cls_out llama_model_n_ctx_train
    llama_model_n_embd llama_model_n_embd_inp llama_model_n_embd_out llama_model_n_head llama_model_n_layer
    llama_model_n_params llama_model_size llama_pooling_type llama_progress_callback llama_sampler_apply
    llama_sampler_chain_add llama_sampler_chain_default_params llama_sampler_chain_init llama_sampler_free
    llama_sampler_init_dist llama_sampler_init_grammar llama_sampler_init_grammar_lazy_patterns
    llama_sampler_init_min_p llama_sampler_init_temp llama_sampler_init_top_k llama_sampler_init_top_p
    llama_set_adapters_lora llama_state_seq_get_data llama_state_seq_get_size llama_state_seq_set_data
    llama_supports_gpu_offload llama_token_data llama_token_data_array llama_tokenize llama_vocab_bos
    llama_vocab_eos llama_vocab_eot llama_vocab_get_add_bos llama_vocab_get_attr llama_vocab_n_tokens
"""
NEEDED = frozenset(_NAMES.split())


def missing_in(bindings: object) -> list[str]:
    """The names it does not have, in order."""
    return sorted(name for name in NEEDED if not hasattr(bindings, name))
