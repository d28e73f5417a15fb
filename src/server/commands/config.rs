//! CONFIG: Redis's names for what a node was started with, and for parameters that tools set and Kvorum merely remembers.

use crate::admin;
use crate::command::{ConfigCommand, WireError};
use crate::protocol::Args;
use crate::server::commands::CommandContext;

pub fn run(command: ConfigCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    match command {
        ConfigCommand::Get => get(args, context),
        ConfigCommand::Set => set(args, context),
        ConfigCommand::Resetstat => {
            context.shared.stats.commands.reset();
            context.shared.stats.errors.reset();
            context.reply.ok();
        }
        ConfigCommand::Rewrite => rewrite(context),
    }
}

/// § An unknown name is an empty map, never an error: clients ask for what they would like to know.
fn get(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for pattern in args.iter().skip(2) {
        for (name, value) in context.shared.parameters.get(&String::from_utf8_lossy(pattern)) {
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, value));
            }
        }
    }
    context.reply.map(found.len());
    for (name, value) in found {
        context.reply.bulk(name.as_bytes());
        context.reply.bulk(value.as_bytes());
    }
}

fn set(args: &Args<'_>, context: &mut CommandContext<'_>) {
    if !args.len().is_multiple_of(2) {
        return WireError::WrongArity("config|set").reply(context.reply);
    }
    let words: Vec<String> = args.iter().skip(2).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let changes: Vec<(&str, &str)> = words.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    match context.shared.parameters.set(&changes) {
        Ok(()) => context.reply.ok(),
        Err(error) => context.reply.error(&error),
    }
}

fn rewrite(context: &mut CommandContext<'_>) {
    let Some(path) = &context.shared.config.config else {
        return context.reply.error("ERR The server is running without a config file");
    };
    match admin::rewrite_config_file(&context.shared.parameters, path) {
        Ok(()) => context.reply.ok(),
        Err(error) => context.reply.error(&format!("ERR Rewriting config file: {error}")),
    }
}
