//! Many scenarios, by index range and worker threads, merged in index order.
