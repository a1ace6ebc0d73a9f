/** The KServe v2 inference protocol with Triton's extensions, over HTTP and gRPC. */
export { inferenceRoutes } from "./describe.ts";
export { GrpcListener } from "./grpcServer.ts";
export { mountKserve } from "./httpRoutes.ts";
export { InferenceService } from "./service.ts";
