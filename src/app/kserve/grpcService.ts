/** The gRPC service of the protocol, from inference.proto: how its methods are called and how their messages become plain objects. */
import { readFileSync } from "node:fs";
import type { MethodDefinition } from "@grpc/grpc-js";
import { parse } from "protobufjs";
import type { Type } from "protobufjs";

/** A message as a plain object: fields as the .proto spells them, 64-bit integers as decimal strings, enums by name. */
export type Message = Readonly<Record<string, unknown>>;
export type Method = MethodDefinition<Message, Message>;

const serviceName = "inference.GRPCInferenceService";

/** The methods by name ("ModelInfer"). Reads the .proto beside this file. */
export function loadInferenceService(): Readonly<Record<string, Method>> {
  const source = readFileSync(new URL("inference.proto", import.meta.url), "utf8");
  const root = parse(source, { keepCase: true }).root.resolveAll();
  const methods = root.lookupService(serviceName).methodsArray.map((method): [string, Method] => {
    const request = codecOf(method.parent!.lookupType(method.requestType));
    const response = codecOf(method.parent!.lookupType(method.responseType));
    return [
      method.name,
      {
        path: `/${serviceName}/${method.name}`,
        requestStream: method.requestStream === true,
        responseStream: method.responseStream === true,
        requestSerialize: request.serialize,
        requestDeserialize: request.deserialize,
        responseSerialize: response.serialize,
        responseDeserialize: response.deserialize,
        originalName: method.name,
      },
    ];
  });
  return Object.fromEntries(methods);
}

function codecOf(type: Type) {
  return {
    serialize: (message: Message): Buffer => Buffer.from(type.encode(type.fromObject(message)).finish()),
    deserialize: (bytes: Buffer): Message =>
      type.toObject(type.decode(bytes), { longs: String, enums: String, defaults: true, oneofs: true }),
  };
}
