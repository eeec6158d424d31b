// Vercel's AI SDK with its provider for servers that speak as OpenAI's does.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { main, said } from "./asking.mjs";

const NAMED = jsonSchema({ type: "object", properties: { name: { type: "string" } }, required: ["name"] });

function request(asked, more) {
  const provider = createOpenAICompatible({ name: "kickoff", baseURL: asked.url, includeUsage: true });
  const { max_tokens: maxOutputTokens } = asked.options;
  const providerOptions = { kickoff: asked.extra };
  return { model: provider(asked.model), prompt: asked.question, maxOutputTokens, providerOptions, ...more };
}

async function answer(asked) {
  const { text, finishReason, usage } = await generateText(request(asked));
  return said(text, finishReason, usage.inputTokens, usage.outputTokens, 1);
}

async function stream(asked) {
  let failed;
  const onError = ({ error }) => {
    failed = error;
  };
  const streaming = streamText(request(asked, { onError }));
  const pieces = [];
  for await (const piece of streaming.textStream) pieces.push(piece);
  if (failed) throw failed;
  const usage = await streaming.usage;
  return said(pieces.join(""), await streaming.finishReason, usage.inputTokens, usage.outputTokens, pieces.length);
}

async function tools(asked) {
  const now = tool({ description: "the time", inputSchema: jsonSchema({ type: "object", properties: {} }) });
  return { text: (await generateText(request(asked, { tools: { now } }))).text };
}

async function structured(asked) {
  return { text: JSON.stringify((await generateObject(request(asked, { schema: NAMED }))).object) };
}

await main({ answer, stream, tools, structured });
