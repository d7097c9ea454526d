//! Beam search: several answers followed at a time, the likeliest as a whole kept.

use super::stop::Transcript;
use super::{Answer, Finish, Listener, Next, Piece, Request};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// One search, over as many rows as it has running answers.
pub(super) struct BeamSearch<'r> {
    number: usize,
    request: &'r Request,
    tokenizer: Option<&'r Tokenizer>,
    /// The likeliest first.
    running: Vec<Hypothesis>,
    /// By descending score; at most as many as beams.
    ended: Vec<(Hypothesis, Finish)>,
}

#[derive(Debug, Clone, Default)]
struct Hypothesis {
    ids: Vec<u32>,
    /// The sum of log-probabilities; divided for the length once it has ended.
    score: f64,
}

impl<'r> BeamSearch<'r> {
    pub(super) fn new(number: usize, request: &'r Request, tokenizer: Option<&'r Tokenizer>) -> BeamSearch<'r> {
        BeamSearch { number, request, tokenizer, running: vec![Hypothesis::default()], ended: Vec::new() }
    }

    /// Each running answer continued, given its logits; none when the search is over.
    pub(super) fn advance(&mut self, logits: &[Vec<f64>]) -> Result<Vec<Next>> {
        let beams = self.request.settings.beams.num_beams;
        let candidates = self.candidates(logits);
        let length = self.running.first().map_or(0, |first| first.ids.len()) + 1;
        let (mut running, mut next) = (Vec::with_capacity(beams), Vec::with_capacity(beams));
        for (rank, (score, Next { parent, token })) in candidates.into_iter().enumerate() {
            let mut ids = self.running[parent].ids.clone();
            ids.push(token);
            match self.end(&ids)? {
                // Of those that end here only the best count: others would not have been followed.
                Some(finish) if rank < beams => self.keep(ids, self.normalised(score, length), finish),
                Some(_) => {}
                None if running.len() < beams => {
                    running.push(Hypothesis { ids, score });
                    next.push(Next { parent, token });
                }
                None => {}
            }
        }
        self.running = running;
        Ok(if self.is_over(length) { Vec::new() } else { next })
    }

    /// The likeliest continuations over all beams, more than beams: enough to go on if stop tokens lead.
    fn candidates(&self, logits: &[Vec<f64>]) -> Vec<(f64, Next)> {
        let settings = &self.request.settings;
        let mut all = Vec::new();
        for (parent, (hypothesis, logits)) in self.running.iter().zip(logits).enumerate() {
            let seen = self.request.prompt.ids.iter().chain(&hypothesis.ids).copied();
            let scores = settings.sampler.penalised(&log_softmax(logits), seen);
            let next = |token: usize| Next { parent, token: token as u32 };
            let scored = scores.iter().enumerate();
            all.extend(scored.map(|(token, score)| (hypothesis.score + score, next(token))));
        }
        let kept = (settings.stop.len() + 1).max(2) * settings.beams.num_beams;
        let descending = |a: &(f64, Next), b: &(f64, Next)| b.0.total_cmp(&a.0);
        if all.len() > kept {
            all.select_nth_unstable_by(kept, descending);
            all.truncate(kept);
        }
        all.sort_by(|a, b| descending(a, b).then((a.1.parent, a.1.token).cmp(&(b.1.parent, b.1.token))));
        all
    }

    fn end(&self, ids: &[u32]) -> Result<Option<Finish>> {
        let settings = &self.request.settings;
        let last = ids.last().copied().unwrap_or_default();
        if settings.stop.contains(&last) {
            return Ok(Some(Finish::Token(last)));
        }
        if !settings.stop_strings.is_empty() && self.transcript(ids)?.stopped() {
            return Ok(Some(Finish::Text));
        }
        Ok((ids.len() >= settings.max_new).then_some(Finish::Length))
    }

    fn transcript(&self, ids: &[u32]) -> Result<Transcript<'r>> {
        let mut transcript = Transcript::new(self.tokenizer, &self.request.settings.stop_strings);
        for &id in ids {
            transcript.push(id)?;
            if transcript.stopped() {
                break;
            }
        }
        Ok(transcript)
    }

    fn normalised(&self, score: f64, length: usize) -> f64 {
        score / (length as f64).powf(self.request.settings.beams.length_penalty)
    }

    fn keep(&mut self, ids: Vec<u32>, score: f64, finish: Finish) {
        let place = self.ended.partition_point(|(other, _)| other.score >= score);
        self.ended.insert(place, (Hypothesis { ids, score }, finish));
        self.ended.truncate(self.request.settings.beams.num_beams);
    }

    /// Whether nothing runs, or the best that runs would, if it ended now, not be among the best.
    fn is_over(&self, length: usize) -> bool {
        let Some(best) = self.running.first() else { return true };
        let full = self.ended.len() == self.request.settings.beams.num_beams;
        let worst = self.ended.last().map_or(f64::NEG_INFINITY, |(ended, _)| ended.score);
        full && self.normalised(best.score, length) <= worst
    }

    /// The best answer, token by token to the listener.
    pub(super) fn finish(self, listener: Listener<'_>) -> Result<Answer> {
        let Some((best, mut finish)) = self.ended.first().cloned() else {
            return Ok(Answer::default());
        };
        let mut ids = best.ids;
        if let Finish::Token(_) = finish {
            ids.pop();
        }
        let mut transcript = Transcript::new(self.tokenizer, &self.request.settings.stop_strings);
        for (i, &token) in ids.iter().enumerate() {
            let piece = Piece { request: self.number, token: Some(token), text: transcript.push(token)? };
            if listener(piece).is_break() {
                finish = Finish::Listener;
                ids.truncate(i + 1);
                break;
            }
        }
        let rest = transcript.finish()?.to_string();
        if !rest.is_empty() {
            // The answer has ended already: there is nothing left to stop.
            let _ = listener(Piece { request: self.number, token: None, text: &rest });
        }
        Ok(Answer { ids, text: transcript.into_text(), finish })
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    logits.iter().map(|logit| logit - highest - total.ln()).collect()
}
