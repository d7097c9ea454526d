//! One answer, each token chosen by itself.

use super::stop::Transcript;
use super::{Answer, Finish, Listener, Piece, Request};
use crate::error::Result;
use crate::sampler::Draws;
use crate::tokenizer::Tokenizer;

/// Greedy or drawn, as the sampler is set.
pub(super) struct Single<'r> {
    /// Its request's number, for the listener.
    number: usize,
    request: &'r Request,
    draws: Draws,
    ids: Vec<u32>,
    transcript: Transcript<'r>,
    finish: Finish,
}

impl<'r> Single<'r> {
    pub(super) fn new(number: usize, request: &'r Request, tokenizer: Option<&'r Tokenizer>) -> Single<'r> {
        Single {
            number,
            request,
            draws: Draws::new(request.settings.sampler),
            ids: Vec::new(),
            transcript: Transcript::new(tokenizer, &request.settings.stop_strings),
            finish: Finish::Length,
        }
    }

    /// The next token, unless the answer ends here.
    pub(super) fn advance(&mut self, logits: &[f64], listener: Listener<'_>) -> Result<Option<u32>> {
        let settings = &self.request.settings;
        let seen = self.request.prompt.ids.iter().chain(&self.ids).copied();
        let token = self.draws.draw(logits, seen);
        if settings.stop.contains(&token) {
            return self.end(Finish::Token(token), listener);
        }
        self.ids.push(token);
        let wanted = listener(Piece { request: self.number, token: Some(token), text: self.transcript.push(token)? });
        if wanted.is_break() {
            return self.end(Finish::Listener, listener);
        }
        if self.transcript.stopped() || self.ids.len() >= settings.max_new {
            return self.end(Finish::Length, listener);
        }
        Ok(Some(token))
    }

    fn end(&mut self, finish: Finish, listener: Listener<'_>) -> Result<Option<u32>> {
        let rest = self.transcript.finish()?.to_string();
        self.finish = match self.transcript.stopped() {
            true => Finish::Text,
            false => finish,
        };
        if !rest.is_empty() {
            // The answer has ended already: there is nothing left to stop.
            let _ = listener(Piece { request: self.number, token: None, text: &rest });
        }
        Ok(None)
    }

    pub(super) fn finish(self) -> Answer {
        Answer { ids: self.ids, text: self.transcript.into_text(), finish: self.finish }
    }
}
