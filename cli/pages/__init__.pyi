from . import demo, report, xray_report

__all__ = ["demo", "report", "xray_report"]
