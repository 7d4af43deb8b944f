//! Converters of whole machines on the golden guests.

mod support;
mod v2v;
mod v2v_2;
mod vcenter;
mod xenconvert;
