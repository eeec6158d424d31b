// What every client's program does: it is asked in JSON, and prints in JSON what the client gave.

export function said(text, finish, prompt, completion, pieces) {
  return { text, finish, tokens: [prompt, completion], pieces };
}

function classes(error) {
  const names = [error.name];
  for (let kind = Object.getPrototypeOf(error); kind !== null; kind = Object.getPrototypeOf(kind)) {
    names.push(kind.constructor.name);
  }
  return names;
}

async function result(asked, cases) {
  try {
    return await cases[asked.want](asked);
  } catch (error) {
    const status = error.status ?? error.statusCode ?? error.lastError?.statusCode ?? null;
    return { error: classes(error), message: error.message, status };
  }
}

export async function main(cases) {
  const results = [];
  for (const asked of JSON.parse(process.argv[2])) results.push(await result(asked, cases));
  console.log(JSON.stringify(results));
}
