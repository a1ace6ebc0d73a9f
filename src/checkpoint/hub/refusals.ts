/** The hub's refusals as sentences that say what the user can do. Statuses and codes: docs of the hub, `X-Error-Code`. */
import { HubError } from "../../base/index.ts";
import { kindNames } from "./names.ts";
import type { RepositoryKind } from "./names.ts";
import type { HubSettings } from "./settings.ts";

/** The error for an answer with status 4xx. Reads the answer's body. */
export async function refusal(
  response: Response,
  { wanted, url, settings }: { wanted: string; url: string; settings: HubSettings },
): Promise<HubError> {
  const code = response.headers.get("x-error-code") ?? "";
  const message = response.headers.get("x-error-message") ?? (await bodyMessage(response));
  await response.body?.cancel().catch(() => undefined);
  const { endpoint, token } = settings;
  const { repository, kind } = repositoryOf(url, endpoint);
  const { prefix, word } = kindNames[kind];
  const page = `${endpoint}/${prefix}${repository ?? ""}`;
  const fields = { status: response.status, code, repository };
  if (code === "GatedRepo") {
    const hint =
      token === undefined
        ? `log in and accept its licence at ${page} in a browser, then set HF_TOKEN to a token of that account`
        : `accept its licence at ${page} in a browser with the account of HF_TOKEN; where the owner grants access by hand, wait for the answer`;
    return new HubError("hub", `expected access to ${repository}, got a gated ${word}`, { hint, fields });
  }
  if (code === "RevisionNotFound") {
    return new HubError("hub", `expected a revision of ${repository}, got none of that name`, {
      hint: `the branches and tags are listed at ${page}/tree/main`,
      fields,
    });
  }
  if (code === "EntryNotFound")
    return new HubError("hub", `expected ${wanted} in ${repository}, got no such file`, { fields });
  if (/invalid (credentials|user token)|token.*(expired|invalid)/i.test(message)) {
    return new HubError("hub", `expected a token that ${endpoint} knows, got one it refuses`, {
      hint: `make a new one at ${endpoint}/settings/tokens and set HF_TOKEN`,
      fields,
    });
  }
  if (code === "RepoNotFound" || (repository !== undefined && [401, 404].includes(response.status))) {
    const hint =
      token === undefined
        ? `check the name; a private ${word} needs HF_TOKEN`
        : `check the name; the account of HF_TOKEN may not see a private ${word} of others`;
    return new HubError("hub", `expected a ${word} named ${repository} at ${endpoint}, got none`, {
      hint,
      fields,
    });
  }
  const said = message === "" ? "" : `: ${message.slice(0, 200)}`;
  return new HubError("hub", `${wanted}: expected an answer, got HTTP ${response.status}${said}`, { fields });
}

async function bodyMessage(response: Response): Promise<string> {
  if (response.headers.get("content-type")?.includes("json") !== true) return "";
  try {
    const body: unknown = await response.json();
    return typeof body === "object" && body !== null && "error" in body ? String(body.error) : "";
  } catch {
    return "";
  }
}

/** The model or data set that an address of the hub speaks of. */
function repositoryOf(
  url: string,
  endpoint: string,
): { repository: string | undefined; kind: RepositoryKind } {
  const path = url.startsWith(`${endpoint}/`)
    ? url.slice(endpoint.length + 1)
    : new URL(url).pathname.slice(1);
  const kind = /^(?:api\/)?datasets\//.test(path) ? "dataset" : "model";
  const name = path
    .replace(/^(?:api\/models\/|(?:api\/)?datasets\/)/, "")
    .split(/\/(?:resolve|revision|tree|refs)\/|\?/)[0];
  return { repository: name === "" ? undefined : decodeURIComponent(name), kind };
}
