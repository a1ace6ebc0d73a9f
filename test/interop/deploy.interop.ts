/** Deployment files by the tools of their field: Kubernetes' own schemas, hadolint, systemd. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { note } from "../../src/base/index.ts";
import { hasModules, python } from "./python.ts";

const root = join(import.meta.dirname, "../..");

function hasTool(name: string, ...args: string[]): boolean {
  const isThere = spawnSync(name, args, { encoding: "utf8" }).status === 0;
  if (!isThere) note(`skipped: no ${name} on this machine`);
  return isThere;
}

const isReady = hasTool("kubectl", "version", "--client") && hasModules("manifests", ["kubernetes_validate"]);

for (const kind of ["base", "gpu", "autoscaling"]) {
  it.skipIf(!isReady)(`kubernetes/${kind} is what Kubernetes' schemas say`, () => {
    const manifests = execFileSync("kubectl", ["kustomize", join(root, "deploy/kubernetes", kind)], {
      encoding: "utf8",
    });
    const folder = mkdtempSync(join(tmpdir(), "nautilus-deploy-"));
    try {
      const file = join(folder, "manifests.yaml");
      writeFileSync(file, manifests);
      const validate = () => {
        const { status, stdout, stderr } = spawnSync(
          python,
          ["-m", "kubernetes_validate", "--strict", file],
          {
            encoding: "utf8",
          },
        );
        return { status, said: stdout + stderr };
      };
      expect(validate()).toMatchObject({ status: 0 });
      // The tool does find what is wrong.
      writeFileSync(file, manifests.replace("httpGet:", "httpGett:"));
      const wrong = validate();
      expect([wrong.status, wrong.said]).toEqual([1, expect.stringContaining("httpGett")]);
    } finally {
      rmSync(folder, { recursive: true });
    }
    const documents = parseAllDocuments(manifests).map(
      (document) => document.toJS() as { kind: string; spec: never },
    );
    const kinds = documents.map((document) => document.kind);
    expect(kinds).toEqual(
      expect.arrayContaining(["Deployment", "Service", "PersistentVolumeClaim", "PodDisruptionBudget"]),
    );
    const limits = JSON.stringify(documents.find((document) => document.kind === "Deployment"));
    expect(limits.includes('"nvidia.com/gpu":"1"')).toBe(kind !== "base");
    expect(kinds.includes("HorizontalPodAutoscaler")).toBe(kind === "autoscaling");
  });
}

const hasHadolint = hasTool("hadolint", "--version");
it.skipIf(!hasHadolint)("the Dockerfile passes hadolint", () => {
  expect(execFileSync("hadolint", [join(root, "deploy/Dockerfile")], { encoding: "utf8" })).toBe("");
});

const hasSystemd = hasTool("systemd-analyze", "--version");
it.skipIf(!hasSystemd)("the systemd unit is understood", () => {
  const { status, stderr } = spawnSync(
    "systemd-analyze",
    ["verify", join(root, "deploy/systemd/nautilus.service")],
    { encoding: "utf8" },
  );
  expect([status, stderr]).toEqual([0, ""]);
});
