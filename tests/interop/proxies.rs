use crate::suite::Suite;
pub async fn run(_suite: &mut Suite) {}
