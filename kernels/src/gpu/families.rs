//! The one list of CUDA sources: what each family's folder holds, and what all include.

use super::Specialisation;

/// `SOURCES` and `specialisations` from families, the files in `kernels/src` that are theirs, and those that are shared.
macro_rules! families {
    ($($($family:ident)::+: $($file:literal)+;)+ [shared] $($shared:literal)+;) => {
        /// Every source and header, by its place in `kernels/src`.
        pub(super) const SOURCES: &[(&str, &str)] = &[
            $($(($file, include_str!(concat!("../", $file))),)+)+
            $(($shared, include_str!(concat!("../", $shared))),)+
        ];

        /// Every specialisation that a launch may choose, family by family.
        pub fn specialisations() -> Vec<Specialisation> {
            let families = [$(crate::$($family)::+::modules()),+];
            let all = families.into_iter().flatten();
            all.map(|(module, threads)| Specialisation { module, threads }).collect()
        }
    };
}

families! {
    activation::gpu: "activation/activation.cu" "activation/activation.cuh";
    attention::gpu: "attention/attention.cu" "attention/attention_backward.cu" "attention/attention_tile.cuh";
    contrastive::gpu: "contrastive/contrastive.cu";
    copy::gpu: "copy/copy.cu";
    dropout::gpu: "dropout/dropout.cu";
    elementwise::gpu: "elementwise/elementwise.cu";
    embedding::gpu: "embedding/embedding.cu";
    gemm::gpu: "gemm/gemm.cu" "gemm/gemm.cuh" "gemm/gemm_partials.cu" "gemm/gemm_simt.cu";
    gpu::golden: "gpu/golden/golden.cu" "gpu/golden/golden_bulk.cu";
    loss::gpu: "loss/loss.cu";
    matching::gpu: "matching/matching.cu";
    norm::gpu: "norm/norm.cu";
    optimizer::gpu: "optimizer/optimizer.cu";
    patch::gpu: "patch/patch.cu";
    pixels::gpu: "pixels/pixels.cu";
    reduce::gpu: "reduce/reduce.cu";
    rotary::gpu: "rotary/rotary.cu";
    [shared] "gpu/include/prelude.cuh" "gpu/include/ptx.cuh" "gpu/include/ptx_sm90.cuh" "gpu/include/random.cuh"
        "gpu/include/score.cuh";
}
