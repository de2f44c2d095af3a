//! stub
use crate::measure::Row;
use crate::world::World;
pub const USUAL: std::time::Duration = std::time::Duration::from_secs(300);
pub async fn rows(_world: &World, _seconds: std::time::Duration) -> Vec<Row> {
    Vec::new()
}
