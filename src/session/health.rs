//! Answers the daemon's health check, without which it ends the session after some ten seconds.

use crate::pb::grpc::health::v1::health_check_response::ServingStatus;
use crate::pb::grpc::health::v1::health_server::{Health, HealthServer};
use crate::pb::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

/// The method that is announced.
pub(super) const METHOD: &str = "/grpc.health.v1.Health/Check";

#[derive(Debug)]
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    /// Says yes for whatever service: only a failing call counts (moby/buildkit session/grpc.go).
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}

/// Adds the service.
pub(super) fn register(routes: &mut RoutesBuilder) {
    routes.add_service(HealthServer::new(Healthy));
}
