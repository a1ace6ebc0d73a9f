/** The playground: files that Vite built, read once, under a policy that lets nothing in or out but this server. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { HttpApp } from "../http/environment.ts";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** uPlot places its parts by inline style attributes set from script, which this policy lets pass: only markup cannot. */
const contentPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** dist/web of the package: beside the compiled server, or beside src in a checkout. */
export function builtPages(): string {
  const isCompiled = import.meta.filename.endsWith(".js");
  return fileURLToPath(new URL(isCompiled ? "../../../web/" : "../../../../dist/web/", import.meta.url));
}

interface Page {
  bytes: Uint8Array<ArrayBuffer>;
  type: string;
  tag: string;
}

function readPages(folder: string): Map<string, Page> {
  const pages = new Map<string, Page>();
  if (!existsSync(join(folder, "index.html"))) return pages;
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const type = types[extname(path)];
    if (type === undefined) continue;
    const bytes = Uint8Array.from(readFileSync(join(folder, path)));
    const tag = `"${createHash("sha256").update(bytes).digest("base64url").slice(0, 22)}"`;
    pages.set(`/${path.replaceAll("\\", "/")}`, { bytes, type, tag });
  }
  return pages;
}

/** Serves the pages of `folder`; where nothing was built, "/" says how to. */
export function mountPages(app: HttpApp, folder: string): void {
  const pages = readPages(folder);
  const index = pages.get("/index.html");
  if (index === undefined) {
    app.get("/", (c) =>
      c.text("Nautilus is running. Its page is not built here: run 'npm run build:web'.\n"),
    );
    return;
  }
  for (const [path, page] of [["/", index] as const, ...pages]) {
    app.get(path, (c) => {
      c.header("content-security-policy", contentPolicy);
      c.header("etag", page.tag);
      // Names of assets hold a digest of their content; the page itself is asked for anew each time.
      c.header(
        "cache-control",
        path.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
      );
      if (c.req.header("if-none-match") === page.tag) return c.body(null, 304);
      return c.body(page.bytes, 200, { "content-type": page.type });
    });
  }
}
